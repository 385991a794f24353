//! `analysis`: table functions over relations, `SELECT * FROM reach(outages, groups, members)`.
//!
//! SQL     `name(relation, …, value, …)` in FROM; arguments by position, or `name => value`
//! In      per relation the columns its [`Function`] names, in that order and with those types; the
//!         planner finds them by name. Ids are of any type that can rest, and move as bytes
//! Out     the function's columns; what it says in a tick holds for the relations as of that tick
//! State   arrangements of the relations, and what the function says it keeps; freed only as rows are deleted
//! Errors  a row with a NULL or a value that its column does not take is an error and counts as not
//!         there; so is what the function says is wrong with the relations as a whole
//!
//! One more function: its rule in a file of its own, without Arrow; an entry in [`functions`], whose
//! `run` reads the relations, calls the rule and writes the rows.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBuilder, Float64Array, Float64Builder, Int64Array, Int64Builder, ListArray, RecordBatch,
    StringArray, StringBuilder, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::util::display::array_value_to_string;
use differential_dataflow::AsCollection;
use tidegate_types::Delta;
use tidegate_types::error::{Error, Result};
use tidegate_types::expr::Failure;
use tidegate_types::row::{EncodedRows, RowCodec};
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::arrange::Bytes;
use crate::cascade::Relation;
use crate::stream::{Errors, Rows, Timed};
use crate::usage::Usage;

mod behaviour;
mod cascade;
mod impact;

/// All functions, by name.
pub fn functions() -> impl Iterator<Item = &'static Function> {
    cascade::FUNCTIONS.iter().chain(&impact::FUNCTIONS).chain(&behaviour::FUNCTIONS)
}

/// The function that SQL calls `name`.
pub fn function(name: &str) -> Option<&'static Function> {
    functions().find(|function| function.name.eq_ignore_ascii_case(name))
}

/// A function as users know it, and what computes it.
pub struct Function {
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    pub relations: &'static [Table],
    pub options: &'static [Parameter],
    pub output: &'static [Column],
    /// The columns of the output that name a row.
    pub key: &'static [usize],
    pub run: for<'scope> fn(Call<'scope>) -> Rows<'scope, u64>,
}

/// A relation that a function takes.
pub struct Table {
    pub name: &'static str,
    /// Whether leaving it out means that it has no rows.
    pub is_optional: bool,
    pub columns: &'static [Column],
}

pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    /// Whether it may be left out, or be NULL.
    pub is_optional: bool,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A name of something: of one type wherever the function says the same word.
    Id(&'static str),
    /// BIGINT, in whatever unit, or TIMESTAMP: one of them in all columns of a call.
    Time,
    BigInt,
    Double,
    Boolean,
    /// One of a few words of ours.
    Text,
    /// A list of ids.
    Ids(&'static str),
}

/// A value that a function takes: a constant.
pub struct Parameter {
    pub name: &'static str,
    pub kind: ParameterKind,
    /// None: it must be given.
    pub default: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterKind {
    Integer {
        min: i64,
        max: i64,
    },
    /// As the times of the call are: an integer or an interval, or a TIMESTAMP.
    Time,
}

/// A mandatory column.
pub const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, is_optional: false }
}

/// A column that may be left out, or be NULL.
pub const fn optional(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, is_optional: true }
}

impl Function {
    /// As people write it: `reach(outages(node), groups(…), …)`.
    pub fn usage(&self) -> String {
        let columns = |columns: &[Column]| {
            let names =
                columns.iter().map(|column| if column.is_optional { format!("[{}]", column.name) } else { column.name.to_string() });
            names.collect::<Vec<_>>().join(", ")
        };
        let relations = self.relations.iter().map(|relation| format!("{}({})", relation.name, columns(relation.columns)));
        let options = self.options.iter().map(|option| match option.default {
            Some(default) => format!("{} => {default}", option.name),
            None => format!("{} => …", option.name),
        });
        let arguments: Vec<String> = relations.chain(options).collect();
        format!("{}({}) gives ({})", self.name, arguments.join(", "), columns(self.output))
    }
}

/// A call of a function, decided by the planner. Plain data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AnalysisPlan {
    pub function: &'static Function,
    /// The columns of each relation, as the function names them.
    pub inputs: Vec<SchemaRef>,
    /// A value per option.
    pub options: Vec<i64>,
    pub schema: SchemaRef,
    types: Types,
}

impl PartialOrd for AnalysisPlan {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        let order = (self.function.name, &self.options).cmp(&(other.function.name, &other.options));
        (order != std::cmp::Ordering::Equal || self == other).then_some(order)
    }
}

impl AnalysisPlan {
    /// `inputs`: per relation the function's columns, under its names.
    pub fn new(function: &'static Function, inputs: Vec<SchemaRef>, options: Vec<i64>, types: Types) -> Self {
        let fields = function.output.iter().map(|column| Field::new(column.name, types.of(column.kind), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Self { function, inputs, options, schema, types }
    }

    /// `options` as people write them.
    pub fn shown(&self) -> String {
        let options = self.function.options.iter().zip(&self.options).map(|(option, value)| format!("{} => {value}", option.name));
        format!("{}({})", self.function.name, options.collect::<Vec<_>>().join(", "))
    }
}

/// The types that a call's ids and times have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Types(BTreeMap<&'static str, DataType>);

impl Types {
    const TIME: &'static str = "time";

    /// Takes `given` as the type of `column`, or says why not.
    pub fn bind(&mut self, function: &Function, relation: &Table, column: &Column, given: &DataType) -> Result<()> {
        let what = format!("column \"{}\" of {}'s {} is {given}", column.name, function.name, relation.name);
        let cast_hint =
            |wanted: &str| format!("write it as {wanted} in a subquery: (SELECT CAST(… AS {wanted}) AS {}, … FROM …)", column.name);
        let (word, hint) = match column.kind {
            Kind::Id(word) => (word, "cast one of them in a subquery, so that ids are of one type".to_string()),
            Kind::Time if is_time(given) || given.is_integer() => (Self::TIME, cast_hint("TIMESTAMP or BIGINT")),
            Kind::Time => return Err(Error::user(format!("{what}, where a time is wanted")).hint(cast_hint("TIMESTAMP or BIGINT"))),
            Kind::BigInt if given.is_integer() || *given == DataType::Null => return Ok(()),
            Kind::BigInt if matches!(given, DataType::Interval(_)) => {
                let hint = format!("write CAST(EXTRACT(EPOCH FROM …) * 1000 AS BIGINT) AS {} in a subquery", column.name);
                return Err(Error::user(format!("{what}, where milliseconds are wanted")).hint(hint));
            }
            Kind::BigInt => return Err(Error::user(format!("{what}, where BIGINT is wanted")).hint(cast_hint("BIGINT"))),
            Kind::Double if given.is_numeric() || *given == DataType::Null => return Ok(()),
            Kind::Double => return Err(Error::user(format!("{what}, where DOUBLE is wanted")).hint(cast_hint("DOUBLE"))),
            Kind::Boolean if matches!(given, DataType::Boolean | DataType::Null) => return Ok(()),
            Kind::Boolean => return Err(Error::user(format!("{what}, where BOOLEAN is wanted")).hint(cast_hint("BOOLEAN"))),
            Kind::Text if given.is_string() || *given == DataType::Null => return Ok(()),
            Kind::Text => return Err(Error::user(format!("{what}, where TEXT is wanted")).hint(cast_hint("TEXT"))),
            Kind::Ids(_) => return Err(Error::engine(format!("{} takes a list of ids", function.name))),
        };
        let given = match column.kind {
            Kind::Time if given.is_integer() => DataType::Int64,
            Kind::Time => millisecond(),
            _ => given.clone(),
        };
        match self.0.get(word) {
            Some(known) if *known != given => Err(Error::user(format!("{what}, and another {word} of the call is {known}")).hint(hint)),
            _ => {
                self.0.insert(word, given);
                Ok(())
            }
        }
    }

    /// The type of a column; of a time or an id that no relation has, BIGINT.
    pub fn of(&self, kind: Kind) -> DataType {
        let bound = |word: &str| self.0.get(word).cloned().unwrap_or(DataType::Int64);
        match kind {
            Kind::Id(word) => bound(word),
            Kind::Time => bound(Self::TIME),
            Kind::BigInt => DataType::Int64,
            Kind::Double => DataType::Float64,
            Kind::Boolean => DataType::Boolean,
            Kind::Text => DataType::Utf8,
            Kind::Ids(word) => DataType::List(Arc::new(Field::new_list_field(bound(word), true))),
        }
    }
}

fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(_, None))
}

fn millisecond() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, None)
}

/// A function's relations as they change, to be read; and the way back.
pub struct Call<'scope> {
    pub scope: Scope<'scope, u64>,
    /// For what a rule keeps beside arrangements.
    pub usage: Usage,
    plan: AnalysisPlan,
    inputs: Vec<Rows<'scope, u64>>,
    errors: Errors,
}

/// Wires the plan.
pub fn analysis<'scope>(
    scope: Scope<'scope, u64>,
    inputs: Vec<Rows<'scope, u64>>,
    plan: AnalysisPlan,
    errors: Errors,
    usage: Usage,
) -> Rows<'scope, u64> {
    (plan.function.run)(Call { scope, usage, plan, inputs, errors })
}

impl<'scope> Call<'scope> {
    /// The value of the option at `index`.
    pub fn option(&self, index: usize) -> i64 {
        self.plan.options[index]
    }

    /// The relation at `index`, each row as `read` gives it. Rows that it refuses, for a reason,
    /// are errors.
    pub fn relation<D: Clone + 'static>(
        &self,
        index: usize,
        read: impl Fn(&Row) -> Result<D, String> + 'static,
    ) -> Relation<'scope, u64, D> {
        let (errors, function) = (self.errors.clone(), self.plan.function);
        let relation = &function.relations[index];
        let types: Vec<DataType> = self.plan.inputs[index].fields().iter().map(|field| field.data_type().clone()).collect();
        let codecs: Vec<RowCodec> = types.iter().map(id_codec).collect();
        let rows = self.inputs[index].clone().unary(Pipeline, "Read", move |_, _| {
            move |input, output| {
                input.for_each(|cap, data| {
                    let mut session = output.session(&cap);
                    for Timed { time, delta } in data.drain(..) {
                        let columns = relation.columns.iter().zip(delta.rows.columns()).zip(&codecs);
                        let values: Vec<Values> = columns.map(|((column, array), codec)| Values::new(column.kind, array, codec)).collect();
                        for (at, &diff) in delta.diffs.iter().enumerate() {
                            match read(&Row { table: relation, values: &values, rows: &delta.rows, at }) {
                                Ok(row) => session.give((row, time, diff)),
                                Err(reason) => {
                                    let reason = format!("{}: {reason}", relation.name);
                                    errors.report(time, function.name, Failure { reason, diff });
                                }
                            }
                        }
                    }
                });
            }
        });
        rows.as_collection()
    }

    /// The answer: `rows` as `write` puts them into columns, and `flaws` as errors, in `say`'s words.
    pub fn answer<D: Clone + 'static, F: Clone + 'static>(
        self,
        rows: Relation<'scope, u64, D>,
        flaws: Relation<'scope, u64, F>,
        write: impl Fn(&D, &mut Writer) + 'static,
        say: impl Fn(&F, &Names) -> String + 'static,
    ) -> Rows<'scope, u64> {
        let (errors, function, schema) = (self.errors, self.plan.function, Arc::clone(&self.plan.schema));
        let names = Names::new(&self.plan.types);
        // One operator for both: a tick's errors are there before its rows have passed.
        rows.inner.binary(flaws.inner, Pipeline, Pipeline, function.name, move |_, _| {
            move |rows, flaws, output| {
                flaws.for_each(|_, data| {
                    for (flaw, time, diff) in data.drain(..) {
                        errors.report(time, function.name, Failure { reason: say(&flaw, &names), diff });
                    }
                });
                rows.for_each(|cap, data| {
                    let mut by_time: BTreeMap<u64, (Writer, Vec<i64>)> = BTreeMap::new();
                    for (row, time, diff) in data.drain(..) {
                        let (writer, diffs) = by_time.entry(time).or_insert_with(|| (Writer::new(function.output), Vec::new()));
                        write(&row, writer);
                        diffs.push(diff);
                    }
                    let deltas = by_time.into_iter().map(|(time, (writer, diffs))| {
                        let rows = writer.finish(&schema, &names);
                        Timed { time, delta: Delta::new(rows, diffs) }
                    });
                    output.session(&cap).give_iterator(deltas);
                });
            }
        })
    }
}

/// How one column of ids becomes bytes.
fn id_codec(data_type: &DataType) -> RowCodec {
    let schema = Schema::new(vec![Field::new("id", data_type.clone(), true)]);
    RowCodec::new(Arc::new(schema)).expect("the planner checked that the type can rest")
}

/// One column of a batch, as its kind wants it.
enum Values {
    Ids(EncodedRows),
    Integers(Int64Array),
    Doubles(Float64Array),
    Booleans(BooleanArray),
    Texts(StringArray),
}

impl Values {
    /// The planner has cast the column, so it is of its kind's type or, where ids or times, of the call's.
    fn new(kind: Kind, column: &ArrayRef, codec: &RowCodec) -> Self {
        match kind {
            Kind::Id(_) | Kind::Ids(_) => Self::Ids(codec.encode_columns(&[Arc::clone(column)], column.len()).expect("the codec's type")),
            Kind::Time => Self::Integers(cast(column, &DataType::Int64).expect("times are integers").as_primitive::<Int64Type>().clone()),
            Kind::BigInt => Self::Integers(column.as_primitive::<Int64Type>().clone()),
            Kind::Double => Self::Doubles(column.as_primitive::<Float64Type>().clone()),
            Kind::Boolean => Self::Booleans(column.as_boolean().clone()),
            Kind::Text => Self::Texts(column.as_string().clone()),
        }
    }
}

/// One row of a relation.
pub struct Row<'a> {
    table: &'static Table,
    values: &'a [Values],
    rows: &'a RecordBatch,
    at: usize,
}

impl Row<'_> {
    /// Whether the relation has such a column.
    pub fn has(&self, column: usize) -> bool {
        column < self.values.len()
    }

    /// NULL is an error.
    pub fn id(&self, column: usize) -> Result<Bytes, String> {
        self.id_or_null(column).ok_or_else(|| self.null(column))
    }

    pub fn id_or_null(&self, column: usize) -> Option<Bytes> {
        match &self.values[column] {
            Values::Ids(ids) if self.rows.column(column).is_valid(self.at) => Some(ids.row(self.at).to_vec()),
            _ => None,
        }
    }

    /// None for NULL.
    pub fn text(&self, column: usize) -> Option<&str> {
        match &self.values[column] {
            Values::Texts(texts) if texts.is_valid(self.at) => Some(texts.value(self.at)),
            _ => None,
        }
    }

    /// NULL is an error.
    pub fn integer(&self, column: usize) -> Result<i64, String> {
        self.integer_or_null(column).ok_or_else(|| self.null(column))
    }

    pub fn integer_or_null(&self, column: usize) -> Option<i64> {
        match &self.values[column] {
            Values::Integers(integers) if integers.is_valid(self.at) => Some(integers.value(self.at)),
            _ => None,
        }
    }

    /// NULL is an error.
    pub fn double(&self, column: usize) -> Result<f64, String> {
        self.double_or_null(column).ok_or_else(|| self.null(column))
    }

    pub fn double_or_null(&self, column: usize) -> Option<f64> {
        match &self.values[column] {
            Values::Doubles(doubles) if doubles.is_valid(self.at) => Some(doubles.value(self.at)),
            _ => None,
        }
    }

    pub fn boolean_or_null(&self, column: usize) -> Option<bool> {
        match &self.values[column] {
            Values::Booleans(booleans) if booleans.is_valid(self.at) => Some(booleans.value(self.at)),
            _ => None,
        }
    }

    /// Why the value of `column` is refused: it `is`.
    pub fn refusal(&self, column: usize, is: &str) -> String {
        let ids = self.table.columns.iter().enumerate().filter(|(other, id)| *other != column && matches!(id.kind, Kind::Id(_)));
        let ids = ids.filter(|(other, _)| self.rows.column(*other).is_valid(self.at));
        let ids: Vec<String> = ids.map(|(other, id)| format!("{} {}", id.name, self.shown(other))).collect();
        let of = if ids.is_empty() { String::new() } else { format!(" of {}", ids.join(", ")) };
        format!("{} {}{of} {is}", self.table.columns[column].name, self.shown(column))
    }

    fn null(&self, column: usize) -> String {
        self.refusal(column, "must not be NULL")
    }

    fn shown(&self, column: usize) -> String {
        shown(self.rows.column(column), self.at)
    }
}

fn shown(column: &ArrayRef, at: usize) -> String {
    match column.is_null(at) {
        true => "NULL".to_string(),
        false => array_value_to_string(column, at).unwrap_or_else(|_| "?".to_string()),
    }
}

/// Ids, as values again.
pub struct Names(HashMap<&'static str, RowCodec>);

impl Names {
    fn new(types: &Types) -> Self {
        Self(types.0.iter().map(|(&word, data_type)| (word, id_codec(data_type))).collect())
    }

    /// For people.
    pub fn show(&self, word: &str, id: &[u8]) -> String {
        self.0.get(word).map_or_else(|| "?".to_string(), |codec| shown(&decoded(codec, std::iter::once(id)), 0))
    }

    fn column(&self, word: &str, ids: &[Option<Bytes>], data_type: &DataType) -> ArrayRef {
        let Some(codec) = self.0.get(word) else { return new_null_array(data_type, ids.len()) };
        let null = codec.encode_columns(&[new_null_array(data_type, 1)], 1).expect("the codec's type");
        decoded(codec, ids.iter().map(|id| id.as_deref().unwrap_or_else(|| null.row(0))))
    }
}

fn decoded<'a>(codec: &RowCodec, ids: impl Iterator<Item = &'a [u8]>) -> ArrayRef {
    codec.decode_columns(ids).expect("what was encoded").remove(0)
}

/// Takes rows, a value per column from left to right, and makes columns of them.
pub struct Writer {
    columns: Vec<Written>,
    next: usize,
}

enum Written {
    Ids(&'static str, Vec<Option<Bytes>>),
    Lists(&'static str, Vec<Option<Bytes>>, Vec<usize>),
    Integers(Int64Builder),
    Doubles(Float64Builder),
    Booleans(BooleanBuilder),
    Texts(StringBuilder),
}

impl Writer {
    fn new(output: &[Column]) -> Self {
        let column = |column: &Column| match column.kind {
            Kind::Id(word) => Written::Ids(word, Vec::new()),
            Kind::Ids(word) => Written::Lists(word, Vec::new(), Vec::new()),
            Kind::Time | Kind::BigInt => Written::Integers(Int64Builder::new()),
            Kind::Double => Written::Doubles(Float64Builder::new()),
            Kind::Boolean => Written::Booleans(BooleanBuilder::new()),
            Kind::Text => Written::Texts(StringBuilder::new()),
        };
        Self { columns: output.iter().map(column).collect(), next: 0 }
    }

    pub fn id(&mut self, id: Option<&Bytes>) {
        match self.next_column() {
            Written::Ids(_, ids) => ids.push(id.cloned()),
            _ => unreachable!("the function says that this column holds ids"),
        }
    }

    pub fn ids(&mut self, list: &[Bytes]) {
        match self.next_column() {
            Written::Lists(_, ids, lengths) => {
                ids.extend(list.iter().cloned().map(Some));
                lengths.push(list.len());
            }
            _ => unreachable!("the function says that this column holds lists"),
        }
    }

    /// A time, or a number.
    pub fn integer(&mut self, value: Option<i64>) {
        match self.next_column() {
            Written::Integers(values) => values.append_option(value),
            _ => unreachable!("the function says that this column holds integers"),
        }
    }

    pub fn double(&mut self, value: Option<f64>) {
        match self.next_column() {
            Written::Doubles(values) => values.append_option(value),
            _ => unreachable!("the function says that this column holds doubles"),
        }
    }

    pub fn boolean(&mut self, value: Option<bool>) {
        match self.next_column() {
            Written::Booleans(values) => values.append_option(value),
            _ => unreachable!("the function says that this column holds booleans"),
        }
    }

    pub fn text(&mut self, value: &str) {
        match self.next_column() {
            Written::Texts(values) => values.append_value(value),
            _ => unreachable!("the function says that this column holds texts"),
        }
    }

    fn next_column(&mut self) -> &mut Written {
        let at = self.next;
        self.next = (at + 1) % self.columns.len();
        &mut self.columns[at]
    }

    fn finish(self, schema: &SchemaRef, names: &Names) -> RecordBatch {
        let columns = self.columns.into_iter().zip(schema.fields()).map(|(column, field)| -> ArrayRef {
            match (column, field.data_type()) {
                (Written::Ids(word, ids), data_type) => names.column(word, &ids, data_type),
                (Written::Lists(word, ids, lengths), DataType::List(item)) => {
                    let values = names.column(word, &ids, item.data_type());
                    Arc::new(ListArray::new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), values, None))
                }
                (Written::Lists(..), other) => unreachable!("a list is not {other}"),
                (Written::Integers(mut values), data_type) => cast(&values.finish(), data_type).expect("times are integers"),
                (Written::Doubles(mut values), _) => Arc::new(values.finish()),
                (Written::Booleans(mut values), _) => Arc::new(values.finish()),
                (Written::Texts(mut values), _) => Arc::new(values.finish()),
            }
        });
        RecordBatch::try_new(Arc::clone(schema), columns.collect()).expect("the function's columns")
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

// Names are unique.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use arrow::array::StringArray;
    use timely::dataflow::operators::{Input, Inspect, Probe};

    use super::*;

    fn texts(values: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    fn integers(values: &[Option<i64>]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    fn called(function: &'static Function, given: &[(&str, DataType)]) -> Result<AnalysisPlan> {
        let mut types = Types::default();
        let columns = || function.relations.iter().flat_map(|table| table.columns.iter().map(move |column| (table, column)));
        for (table, column) in columns() {
            let found = given.iter().find(|(name, _)| *name == column.name);
            found.map_or(Ok(()), |(_, data_type)| types.bind(function, table, column, data_type))?;
        }
        let inputs = function.relations.iter().map(|table| {
            let fields = table.columns.iter().map(|column| Field::new(column.name, types.of(column.kind), true));
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        });
        Ok(AnalysisPlan::new(function, inputs.collect(), Vec::new(), types.clone()))
    }

    #[test]
    fn names_are_unique_and_columns_of_the_key_are_there() {
        for function in functions() {
            assert_eq!(functions().filter(|other| *other == function).count(), 1, "{function:?}");
            assert!(function.key.iter().all(|column| *column < function.output.len()), "{function:?}");
        }
    }

    #[test]
    fn ids_and_times_of_a_call_are_of_one_type() {
        let function = function("Time_To_Impact").unwrap();
        let plan = called(function, &[("node", DataType::Utf8), ("group_id", DataType::Int32), ("starts", millisecond())]).unwrap();
        let types: Vec<DataType> = plan.schema.fields().iter().map(|field| field.data_type().clone()).collect();
        assert_eq!(types, [DataType::Utf8, millisecond(), DataType::Int64]);
        let table = &function.relations[0];
        let mut types = Types::default();
        types.bind(function, table, &table.columns[0], &DataType::Utf8).unwrap();
        assert!(types.bind(function, table, &table.columns[0], &DataType::Int64).is_err());
        assert!(types.bind(function, table, &table.columns[1], &DataType::Utf8).is_err());
    }

    /// What the function says of node and time, and its errors, after each of these ticks of outages.
    #[test]
    fn rows_come_back_as_values_and_bad_ones_are_errors_until_they_go() {
        let plan = called(
            function("time_to_impact").unwrap(),
            &[("node", DataType::Utf8), ("group_id", DataType::Int64), ("starts", DataType::Int64)],
        );
        let plan = plan.unwrap();
        let ticks = timely::execute_directly(move |worker| {
            let errors = Errors::default();
            let seen: Rc<RefCell<BTreeMap<(String, i64), i64>>> = Rc::default();
            let (told, failed, call) = (Rc::clone(&seen), errors.clone(), plan.clone());
            let (mut inputs, probe) = worker.dataflow::<u64, _, _>(|scope| {
                let (outages, first) = scope.new_input::<Vec<Timed<u64>>>();
                let (groups, second) = scope.new_input::<Vec<Timed<u64>>>();
                let (members, third) = scope.new_input::<Vec<Timed<u64>>>();
                let rows =
                    analysis(scope, vec![first, second, third], call, failed, Usage::default()).inspect(move |Timed { delta, .. }| {
                        let starts = delta.rows.column(1).as_primitive::<Int64Type>();
                        for (at, diff) in delta.diffs.iter().enumerate() {
                            let row = (shown(delta.rows.column(0), at), starts.value(at));
                            *told.borrow_mut().entry(row).or_default() += diff;
                        }
                    });
                ([outages, groups, members], rows.probe().0)
            });
            let schemas = plan.inputs;
            let mut send = |table: usize, tick: u64, columns: Vec<ArrayRef>, diff: i64| {
                let rows = RecordBatch::try_new(Arc::clone(&schemas[table]), columns).unwrap();
                let diffs = vec![diff; rows.num_rows()];
                inputs[table].send(Timed { time: tick, delta: Delta::new(rows, diffs) });
            };
            send(0, 1, vec![texts(&[Some("a"), None]), integers(&[Some(5), Some(1)])], 1);
            send(1, 1, vec![integers(&[Some(1)]), texts(&[Some("b")]), integers(&[None]), integers(&[Some(10)])], 1);
            send(2, 1, vec![integers(&[Some(1), Some(1)]), texts(&[Some("a"), Some("c")]), integers(&[None, Some(-2)])], 1);
            send(2, 2, vec![integers(&[Some(1)]), texts(&[Some("c")]), integers(&[Some(-2)])], -1);
            send(0, 3, vec![texts(&[None]), integers(&[Some(1)])], -1);
            send(0, 3, vec![texts(&[Some("a")]), integers(&[Some(5)])], -1);
            let closed = (1..=3).map(|tick| {
                inputs.iter_mut().for_each(|input| input.advance_to(tick + 1));
                worker.step_while(|| probe.less_than(&(tick + 1)));
                let rows = seen.borrow().iter().filter(|(_, count)| **count != 0).map(|(row, _)| row.clone()).collect::<Vec<_>>();
                let mut reasons: Vec<(String, i64)> =
                    errors.take_through(tick).into_iter().map(|(error, diff)| (error.reason, diff)).collect();
                reasons.sort();
                (rows, reasons)
            });
            closed.collect::<Vec<_>>()
        });
        let row = |node: &str, starts: i64| (node.to_string(), starts);
        let negative = "members: delay_ms -2 of group_id 1, node c is negative".to_string();
        let null = "outages: node NULL must not be NULL".to_string();
        assert_eq!(ticks[0], (vec![row("a", 5), row("b", 15)], vec![(negative.clone(), 1), (null.clone(), 1)]));
        assert_eq!(ticks[1], (vec![row("a", 5), row("b", 15)], vec![(negative, -1)]));
        assert_eq!(ticks[2], (vec![], vec![(null, -1)]));
    }
}
