//! Detectors as DataFusion's window functions, so that it plans them, and computes them in batch;
//! and the scalar functions beside them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    ColumnarValue, Expr, PartitionEvaluator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, WindowFrameBound,
    WindowFrameUnits, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::expressions::Literal;
use tidegate_operators::detector::{CALLS, Call, Rule, t2_limit, voter};
use tidegate_types::error::{Error, Result as OurResult};

pub(super) fn window_functions() -> impl Iterator<Item = Arc<WindowUDF>> {
    let signature = || Signature::user_defined(Volatility::Immutable);
    CALLS.into_iter().map(move |call| Arc::new(WindowUDF::from(Detector { call, signature: signature() })))
}

pub(super) fn scalar_functions() -> [Arc<ScalarUDF>; 2] {
    let numbers = |count| Signature::exact(vec![DataType::Float64; count], Volatility::Immutable);
    [
        Arc::new(ScalarUDF::from(OfNumbers { name: "voter", signature: numbers(4) })),
        Arc::new(ScalarUDF::from(OfNumbers { name: "t2_limit", signature: numbers(3) })),
    ]
}

/// What a detector's call says: the rule, and the columns it reads.
///
/// Errors: a parameter that is no literal, or makes no sense.
pub fn detector_call(function: &WindowFunction) -> OurResult<(Rule, Vec<Expr>)> {
    let name = function.fun.name();
    let call = Call::of(name).ok_or_else(|| Error::engine(format!("{name} is no detector")))?;
    let (mut parameters, mut columns) = (Vec::new(), Vec::new());
    for (at, arg) in function.params.args.iter().enumerate() {
        match call.is_parameter(at) {
            true => parameters.push(number(arg).ok_or_else(|| {
                Error::user(format!("{arg} in {name}() is no number that is known beforehand")).hint(format!("call {}", call.shape))
            })?),
            false => columns.push(arg.clone()),
        }
    }
    let rule = Rule::new(name, &parameters, columns.len()).map_err(|reason| Error::user(reason).hint(format!("call {}", call.shape)))?;
    Ok((rule, columns))
}

/// Why `function`, if it is a detector, cannot be what it says.
pub(super) fn refusal(function: &WindowFunction) -> Option<Error> {
    let name = function.fun.name();
    Call::of(name)?;
    let params = &function.params;
    if params.order_by.is_empty() {
        return Some(Error::user(format!("{name}() needs an order")).hint("write OVER (PARTITION BY series ORDER BY time)"));
    }
    let frame = &params.window_frame;
    let is_whole = frame.units == WindowFrameUnits::Range
        && frame.start_bound.is_unbounded()
        && matches!(&frame.end_bound, WindowFrameBound::CurrentRow);
    if !is_whole {
        return Some(Error::unsupported(format!("{name}() over a frame"), "leave the frame out: a detector reads all rows so far"));
    }
    if params.filter.is_some() || params.distinct || params.null_treatment.is_some() {
        let way_out = "filter in a subquery; rows whose reading is NULL have no score and leave none behind";
        return Some(Error::unsupported(format!("FILTER, DISTINCT or IGNORE NULLS of {name}()"), way_out));
    }
    detector_call(function).err()
}

/// A literal, also negated or cast.
fn number(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Literal(value, _) => as_number(value),
        Expr::Negative(inner) => number(inner).map(|number| -number),
        Expr::Cast(cast) => number(&cast.expr),
        Expr::Alias(alias) => number(&alias.expr),
        _ => None,
    }
}

fn as_number(value: &ScalarValue) -> Option<f64> {
    if !value.data_type().is_numeric() {
        return None;
    }
    match value.cast_to(&DataType::Float64) {
        Ok(ScalarValue::Float64(number)) => number,
        _ => None,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Detector {
    call: Call,
    signature: Signature,
}

impl WindowUDFImpl for Detector {
    fn name(&self) -> &str {
        self.call.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// What is no number stays as it is, for [`Self::field`] to refuse in words of our own.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let is_number = |kind: &DataType| kind.is_numeric() || kind.is_null();
        Ok(types.iter().map(|kind| if is_number(kind) { DataType::Float64 } else { kind.clone() }).collect())
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let Call { name, shape, .. } = self.call;
        if let Some(other) = args.input_fields().iter().find(|field| !field.data_type().is_numeric() && !field.data_type().is_null()) {
            let error = Error::user(format!("{name}() takes numbers, not {}", other.data_type())).hint(format!("call {shape}"));
            return Err(DataFusionError::External(Box::new(error)));
        }
        Ok(Arc::new(Field::new(args.name(), DataType::Float64, true)))
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        let (mut parameters, mut columns) = (Vec::new(), Vec::new());
        for (at, expr) in args.input_exprs().iter().enumerate() {
            if !self.call.is_parameter(at) {
                columns.push(at);
                continue;
            }
            match expr.downcast_ref::<Literal>().and_then(|literal| as_number(literal.value())) {
                Some(parameter) => parameters.push(parameter),
                None => return plan_err!("{expr} in {}() is no number that is known beforehand", self.call.name),
            }
        }
        let rule = Rule::new(self.call.name, &parameters, columns.len()).map_err(DataFusionError::Plan)?;
        Ok(Box::new(Partition { rule, columns }))
    }
}

/// One series, from its start.
#[derive(Debug)]
struct Partition {
    rule: Rule,
    /// Which arguments are columns.
    columns: Vec<usize>,
}

impl PartitionEvaluator for Partition {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let columns: Vec<&Float64Array> = self.columns.iter().map(|&at| values[at].as_primitive::<Float64Type>()).collect();
        let (mut state, mut x) = (self.rule.start(), vec![0.0; columns.len()]);
        let score = |row: usize| {
            x.iter_mut().zip(&columns).for_each(|(x, column)| *x = if column.is_valid(row) { column.value(row) } else { f64::NAN });
            state.score(&x)
        };
        Ok(Arc::new((0..rows).map(score).collect::<Float64Array>()))
    }
}

/// `voter(a, b, c, tolerance)` and `t2_limit(columns, train, quantile)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfNumbers {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for OfNumbers {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = args.args.iter().map(|arg| arg.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let columns: Vec<&Float64Array> = columns.iter().map(|column| column.as_primitive::<Float64Type>()).collect();
        let number = |at: usize, row: usize| columns[at].is_valid(row).then(|| columns[at].value(row));
        let vote = |row: usize| Ok(number(3, row).and_then(|tolerance| voter([0, 1, 2].map(|at| number(at, row)), tolerance)));
        let limit = |row: usize| match (number(0, row), number(1, row), number(2, row)) {
            (Some(columns), Some(train), Some(quantile)) => limit(columns, train, quantile).map(Some),
            _ => Ok(None),
        };
        let rows = 0..args.number_rows;
        let values: Float64Array = match self.name {
            "voter" => rows.map(vote).collect::<Result<_>>()?,
            _ => rows.map(limit).collect::<Result<_>>()?,
        };
        Ok(ColumnarValue::Array(Arc::new(values)))
    }
}

fn limit(columns: f64, train: f64, quantile: f64) -> Result<f64> {
    let is_count = |number: f64| (1.0..=1e9).contains(&number) && number.fract() == 0.0;
    if !(is_count(columns) && is_count(train) && columns < train && 0.0 < quantile && quantile < 1.0) {
        return exec_err!("t2_limit(columns, train, quantile) takes counts, of which train is larger, and a quantile between 0 and 1");
    }
    Ok(t2_limit(columns as usize, train as usize, quantile))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_of_counts_and_quantiles() {
        // 8 columns, 400 rows: m(n-1)(n+1)/(n(n-m)) F(.999; 8, 392)
        assert!((limit(8.0, 400.0, 0.999).unwrap() - 27.5).abs() < 0.5);
        for (columns, train, quantile) in [(0.0, 9.0, 0.5), (9.0, 9.0, 0.5), (1.5, 9.0, 0.5), (1.0, 9.0, 1.0), (1.0, f64::NAN, 0.5)] {
            assert!(limit(columns, train, quantile).is_err());
        }
    }
}
