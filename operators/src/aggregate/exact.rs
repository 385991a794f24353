//! DataFusion's own aggregates, where they compute in batch: in OVER, in `recompute` and in reads.
//!
//! Its `sum` wraps around: integers and decimals are summed in a wider type here, and a result that
//! does not fit its own is an error. Its grouped `min` and `max` begin at the largest finite float and compare as floats,
//! so infinities and NaN are lost: floats are compared in their total order here, group by group. A frame that slides takes a float out by subtracting it, which
//! leaves what rounding lost, and NaN for ever: `sum` and `avg` slide with this crate's exact
//! accumulators, what builds on squares and products is computed anew for each frame. Its `percentile_cont` keeps six
//! digits of where it is between two values: see [`percentile`]. Its `regr_r2` of a constant is NULL, where nothing is left
//! to explain.

use std::fmt;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::{CastOptions, cast, cast_with_options, concat};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, not_impl_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, EmitTo, GroupsAccumulator, ReversedUDAF, Signature,
};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

use super::accumulators::{self, accumulator};
use super::percentile::Percentile;
use super::{Call, Function};
use crate::usage::Usage;

/// `function`, or one that stands for it and answers right.
pub fn exact(function: &Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    match function.name() {
        "min" | "max" | "sum" | "avg" | "bool_and" | "bool_or" | "var" | "var_pop" | "stddev" | "stddev_pop" | "covar_samp"
        | "covar_pop" | "corr" | "percentile_cont" => Arc::new(AggregateUDF::from(Exact(Arc::clone(function)))),
        name if name.starts_with("regr_") => Arc::new(AggregateUDF::from(Exact(Arc::clone(function)))),
        _ => Arc::clone(function),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Exact(Arc<AggregateUDF>);

impl Exact {
    /// The type in which no sum of values of `result`'s type leaves its range.
    fn wider(&self, result: &DataType) -> Option<DataType> {
        match result {
            _ if self.name() != "sum" => None,
            DataType::Int64 | DataType::UInt64 => Some(DataType::Decimal128(38, 0)),
            DataType::Decimal128(_, scale) => Some(DataType::Decimal256(76, *scale)),
            _ => None,
        }
    }

    fn is_extreme(&self) -> bool {
        matches!(self.name(), "min" | "max")
    }

    fn is_percentile(&self, argument: &DataType) -> bool {
        self.name() == "percentile_cont" && argument.is_floating()
    }

    fn sliding(&self, argument: &DataType) -> Option<Function> {
        let function = match self.name() {
            "sum" => Function::Sum,
            "avg" => Function::Avg,
            "bool_and" => Function::BoolAnd,
            "bool_or" => Function::BoolOr,
            _ => return None,
        };
        function.accepts(argument).then_some(function)
    }
}

impl AggregateUDFImpl for Exact {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(arguments)
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.0.return_type(arguments)
    }

    fn is_nullable(&self) -> bool {
        self.0.is_nullable()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.0.default_value(data_type)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.0.order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.0.reverse_udf()
    }

    fn supports_within_group_clause(&self) -> bool {
        self.0.supports_within_group_clause()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        match self.wider(args.return_type()) {
            Some(wide) => self.0.state_fields(StateFieldsArgs { return_field: retyped(&args.return_field, wide), ..args }),
            None => self.0.state_fields(args),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if self.is_percentile(args.expr_fields[0].data_type()) {
            let percentile = Percentile::new(&args)?;
            // For its errors.
            self.0.accumulator(args)?;
            return Ok(Box::new(percentile));
        }
        if self.name() == "regr_r2" {
            return Ok(Box::new(Explained(self.0.accumulator(args)?)));
        }
        let Some(wide) = self.wider(args.return_type()) else { return self.0.accumulator(args) };
        let range = Range::new(wide, args.return_type());
        let inner = self.0.accumulator(AccumulatorArgs { return_field: retyped(&args.return_field, range.wide.clone()), ..args })?;
        Ok(Box::new(Wide { inner, range }))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        let is_total = !(self.is_extreme() && args.return_type().is_floating());
        is_total && !self.is_percentile(args.expr_fields[0].data_type()) && self.0.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let Some(wide) = self.wider(args.return_type()) else { return self.0.create_groups_accumulator(args) };
        let range = Range::new(wide, args.return_type());
        let return_field = retyped(&args.return_field, range.wide.clone());
        let inner = self.0.create_groups_accumulator(AccumulatorArgs { return_field, ..args })?;
        Ok(Box::new(WideGroups { inner, range }))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if self.is_extreme() {
            return self.0.create_sliding_accumulator(args);
        }
        let argument = args.expr_fields[0].data_type();
        Ok(match self.sliding(argument) {
            Some(function) => {
                let call = Call { function, argument: Some(0), filter: None, distinct: args.is_distinct };
                Box::new(Sliding::new(accumulator(&call, Some(argument), args.return_type(), false, &Usage::default())))
            }
            None => {
                let function = Arc::new(AggregateUDF::from(Self(Arc::clone(&self.0))));
                Box::new(Anew { function, args: OwnedArgs::from(&args), frame: Vec::new() })
            }
        })
    }
}

fn retyped(field: &FieldRef, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(field.name(), data_type, true))
}

/// The type to sum in, and the type the result must fit.
#[derive(Debug)]
struct Range {
    wide: DataType,
    result: DataType,
}

impl Range {
    fn new(wide: DataType, result: &DataType) -> Self {
        Self { wide, result: result.clone() }
    }

    fn widened(&self, values: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        values.iter().map(|column| Ok(cast(column, &self.wide)?)).collect()
    }

    fn narrowed(&self, sums: &ArrayRef) -> Result<ArrayRef> {
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(sums, &self.result, &strict).map_err(|_| exec_datafusion_err!("sum is out of range for {}", self.result))
    }
}

#[derive(Debug)]
struct Wide {
    inner: Box<dyn Accumulator>,
    range: Range,
}

impl Accumulator for Wide {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(&self.range.widened(values)?)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let sum = self.inner.evaluate()?.to_array()?;
        ScalarValue::try_from_array(&self.range.narrowed(&sum)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }
}

struct WideGroups {
    inner: Box<dyn GroupsAccumulator>,
    range: Range,
}

impl GroupsAccumulator for WideGroups {
    fn update_batch(&mut self, values: &[ArrayRef], groups: &[usize], filter: Option<&BooleanArray>, total: usize) -> Result<()> {
        self.inner.update_batch(&self.range.widened(values)?, groups, filter, total)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.range.narrowed(&self.inner.evaluate(emit_to)?)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.inner.state(emit_to)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.inner.merge_batch(states, groups, total)
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        self.inner.convert_to_state(&self.range.widened(values)?, filter)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

/// `regr_r2`, of which a constant that anything was set beside is explained in full.
///
/// Source: SQL:2003, 10.9: NULL where x is constant, 1 where y is.
#[derive(Debug)]
struct Explained(Box<dyn Accumulator>);

impl Accumulator for Explained {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let state = self.0.state()?;
        let [_, _, _, of_x, of_y, _] = &state[..] else { return not_impl_err!("regr_r2() with another state") };
        let is_constant = |squares: &ScalarValue| *squares == ScalarValue::Float64(Some(0.0));
        match !is_constant(of_x) && is_constant(of_y) {
            true => Ok(ScalarValue::Float64(Some(1.0))),
            false => self.0.evaluate(),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states)
    }
}

/// One of this crate's accumulators, over one frame after the other.
struct Sliding(Mutex<Box<dyn accumulators::Accumulator>>);

impl Sliding {
    fn new(mut inner: Box<dyn accumulators::Accumulator>) -> Self {
        inner.grow(1);
        Self(Mutex::new(inner))
    }

    fn inner(&mut self) -> &mut dyn accumulators::Accumulator {
        self.0.get_mut().expect("no panic while held").as_mut()
    }

    fn change(&mut self, values: &[ArrayRef], diff: i64) {
        let rows = values[0].len();
        self.inner().update(&vec![0; rows], Some(&values[0]), &vec![diff; rows]);
    }
}

impl fmt::Debug for Sliding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sliding")
    }
}

impl Accumulator for Sliding {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.change(values, 1);
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.change(values, -1);
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut failed = None;
        let result = self.inner().evaluate(&[0], &mut |_, reason| failed = Some(reason));
        match failed {
            Some(reason) => Err(exec_datafusion_err!("{reason}")),
            None => ScalarValue::try_from_array(&result, 0),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        not_impl_err!("a part of a frame")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        not_impl_err!("a part of a frame")
    }
}

/// An aggregate that is computed from all values of a frame, each time it is asked.
#[derive(Debug)]
struct Anew {
    function: Arc<AggregateUDF>,
    args: OwnedArgs,
    /// Frames lose their oldest rows first.
    frame: Vec<ArrayRef>,
}

impl Accumulator for Anew {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.frame.is_empty() {
            self.frame = values.to_vec();
            return Ok(());
        }
        let columns = self.frame.iter().zip(values).map(|(old, new)| Ok(concat(&[old.as_ref(), new.as_ref()])?));
        self.frame = columns.collect::<Result<_>>()?;
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let gone = values[0].len();
        self.frame.iter_mut().for_each(|column| *column = column.slice(gone, column.len() - gone));
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut all = self.function.accumulator(self.args.borrowed())?;
        if !self.frame.is_empty() {
            all.update_batch(&self.frame)?;
        }
        all.evaluate()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.frame.iter().map(|column| column.get_array_memory_size()).sum::<usize>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        not_impl_err!("a part of a frame")
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        not_impl_err!("a part of a frame")
    }
}

/// [`AccumulatorArgs`] that outlive the call.
#[derive(Debug)]
struct OwnedArgs {
    return_field: FieldRef,
    schema: Schema,
    ignore_nulls: bool,
    order_bys: Vec<PhysicalSortExpr>,
    is_reversed: bool,
    name: String,
    is_distinct: bool,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
}

impl From<&AccumulatorArgs<'_>> for OwnedArgs {
    fn from(args: &AccumulatorArgs) -> Self {
        Self {
            return_field: Arc::clone(&args.return_field),
            schema: args.schema.clone(),
            ignore_nulls: args.ignore_nulls,
            order_bys: args.order_bys.to_vec(),
            is_reversed: args.is_reversed,
            name: args.name.to_string(),
            is_distinct: args.is_distinct,
            exprs: args.exprs.to_vec(),
            expr_fields: args.expr_fields.to_vec(),
        }
    }
}

impl OwnedArgs {
    fn borrowed(&self) -> AccumulatorArgs<'_> {
        AccumulatorArgs {
            return_field: Arc::clone(&self.return_field),
            schema: &self.schema,
            ignore_nulls: self.ignore_nulls,
            order_bys: &self.order_bys,
            is_reversed: self.is_reversed,
            name: &self.name,
            is_distinct: self.is_distinct,
            exprs: &self.exprs,
            expr_fields: &self.expr_fields,
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    fn answer(sql: &str) -> String {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let functions: Vec<_> = context.state().aggregate_functions().values().map(exact).collect();
        functions.into_iter().for_each(|function| context.register_udaf(function.as_ref().clone()));
        let collected = futures::executor::block_on(async { context.sql(sql).await?.collect().await });
        match collected {
            Ok(batches) => {
                pretty_format_batches(&batches).unwrap().to_string().lines().skip(3).collect::<String>().replace(['+', '-', ' '], "")
            }
            Err(error) => error.strip_backtrace(),
        }
    }

    #[test]
    fn a_sum_that_does_not_fit_fails() {
        const MAX: &str = "9223372036854775807";
        let of = |call: &str, values: &str| answer(&format!("SELECT {call} AS s FROM (VALUES {values}) t(a)"));
        assert_eq!(of("sum(a)", &format!("({MAX}), (1), (-1)")), format!("|{MAX}|"));
        for call in
            ["sum(a)", "sum(DISTINCT a)", "sum(a) OVER ()", "sum(a) OVER (ROWS UNBOUNDED PRECEDING)", "sum(a) OVER (ROWS 1 PRECEDING)"]
        {
            assert!(of(call, &format!("({MAX}), (1)")).contains("sum is out of range for Int64"), "{call}");
        }
        assert_eq!(of("sum(a)", "(CAST(NULL AS BIGINT))"), "|NULL|".replace("NULL", ""));
        let nines = "9".repeat(38);
        let decimals = format!("(CAST('{nines}' AS DECIMAL(38, 0))), (CAST('{nines}' AS DECIMAL(38, 0)))");
        assert!(of("sum(a)", &decimals).contains("sum is out of range for Decimal128"));
        assert_eq!(of("sum(DISTINCT a)", &decimals), format!("|{nines}|"));
    }

    #[test]
    fn the_extremes_of_a_group_of_floats_may_be_infinite_or_nan() {
        let of = |call: &str, values: &str| {
            let floats: Vec<String> = values.split(' ').map(|value| format!("(1, CAST('{value}' AS DOUBLE))")).collect();
            answer(&format!("SELECT {call} AS s FROM (VALUES {}) t(k, x) GROUP BY k", floats.join(", ")))
        };
        for (values, least, most) in
            [("NaN inf 1.5", "1.5", "NaN"), ("NaN 0", "0.0", "NaN"), ("-inf", "inf", "inf"), ("inf", "inf", "inf"), ("NaN", "NaN", "NaN")]
        {
            assert_eq!([of("min(x)", values), of("max(x)", values)], [format!("|{least}|"), format!("|{most}|")], "{values}");
        }
        assert_eq!(of("max(CAST(x AS REAL)) FILTER (WHERE x > 0)", "inf 1"), "|inf|");
        assert_eq!(of("max(DISTINCT x)", "-1 -1"), "|1.0|", "signs are not shown");
    }

    #[test]
    fn what_is_constant_is_explained_in_full() {
        let of = |call: &str, values: &str| answer(&format!("SELECT {call} AS s FROM (VALUES {values}) t(i, y, x)"));
        for (values, share) in [
            ("(1, 2.0, 1.0), (2, 2.0, 3.0)", "1.0"),
            ("(1, 1.0, 2.0), (2, 3.0, 2.0)", ""),
            ("(1, 2.0, 2.0), (2, 2.0, 2.0)", ""),
            ("(1, 1.0, 2.0)", ""),
            ("(1, 1.0, 1.0), (2, 2.0, 2.0), (3, 2.0, 3.0)", "0.75"),
        ] {
            assert_eq!(of("round(regr_r2(y, x), 9)", values), format!("|{share}|"), "{values}");
        }
        let frames = of("regr_r2(y, x) OVER (ORDER BY i ROWS 1 PRECEDING)", "(1, 2.0, 1.0), (2, 2.0, 3.0), (3, 4.0, 3.0)");
        assert_eq!(frames, "|||1.0|||");
    }

    #[test]
    fn what_slides_out_of_a_frame_leaves_nothing_behind() {
        let frames = |call: &str, values: &str| {
            answer(&format!("SELECT {call} OVER (ORDER BY i ROWS 1 PRECEDING) AS s FROM (VALUES {values}) t(i, x)"))
        };
        let values = "(1, CAST('NaN' AS DOUBLE)), (2, 1e20), (3, 1.0), (4, 2.0)";
        assert_eq!(frames("sum(x)", values), "|NaN||NaN||1e20||3.0|");
        assert_eq!(frames("avg(x)", values), "|NaN||NaN||5e19||1.5|");
        assert_eq!(frames("var_pop(x)", values), "|0.0||NaN||2.5e39||0.25|");
        assert_eq!(frames("sum(DISTINCT x)", "(1, 2), (2, 2), (3, 5), (4, NULL)"), "|2||2||7||5|");
    }
}
