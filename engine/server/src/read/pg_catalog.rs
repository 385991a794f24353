//! Postgres's catalog of the engine's relations, where `datafusion-postgres` leaves it out: which views are
//! materialized, what they are defined as and what state they keep, and what clients ask on their way.
//!
//! Oids      are those of `datafusion-postgres`; [`Known`] learns which relation has which before a plan runs
//!           that asks for it
//! Sizes     of materialized views are their state's, as in `sys.views`; others keep none that is known

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, plan_err};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility, col, create_udf, lit, when,
};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{self, Statement, visit_expressions_mut};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::{PgCatalogContextProvider, Role};
use tidegate_runtime::{Engine, RelationInfo};

/// Whom clients are told they are, and who owns all there is.
const OWNER: &str = "postgres";

/// The one role.
#[derive(Debug, Clone)]
pub(super) struct Roles;

#[async_trait]
impl PgCatalogContextProvider for Roles {
    async fn roles(&self) -> Vec<String> {
        vec![OWNER.into()]
    }

    async fn role(&self, name: &str) -> Option<Role> {
        (name == OWNER).then(|| Role {
            name: OWNER.into(),
            is_superuser: false,
            can_login: true,
            can_create_db: false,
            can_create_role: false,
            can_create_user: false,
            can_replication: false,
            grants: Vec::new(),
            inherited_roles: Vec::new(),
        })
    }
}

/// Which relation has which oid.
#[derive(Clone)]
pub(super) struct Known {
    engine: Engine,
    names: Arc<RwLock<BTreeMap<i64, String>>>,
}

impl Known {
    pub(super) fn new(engine: Engine) -> Self {
        Self { engine, names: Arc::default() }
    }

    /// The relations there are now.
    pub(super) async fn learn(&self, session: &SessionContext) -> DfResult<()> {
        const OIDS: &str = "SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('public', 'sys')";
        let mut names = BTreeMap::new();
        for batch in session.sql(OIDS).await?.collect().await? {
            let oids = batch.column(0).as_primitive::<Int32Type>();
            let (schemas, relations) = (batch.column(1).as_string::<i32>(), batch.column(2).as_string::<i32>());
            for (oid, (schema, relation)) in oids.iter().zip(schemas.iter().zip(relations)) {
                let (Some(oid), Some(schema), Some(relation)) = (oid, schema, relation) else { continue };
                let name = if schema == "public" { relation.to_string() } else { format!("{schema}.{relation}") };
                names.insert(i64::from(oid), name);
            }
        }
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
        Ok(())
    }

    /// The relations' names, by their oids or as they are.
    fn named(&self, relations: &ArrayRef) -> Vec<Option<String>> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        match relations.data_type() {
            DataType::Int64 => {
                let oids = relations.as_primitive::<Int64Type>();
                oids.iter().map(|oid| names.get(&oid?).cloned()).collect()
            }
            _ => {
                let texts = relations.as_string::<i32>();
                texts
                    .iter()
                    .map(|text| text.map(|text| text.parse().ok().and_then(|oid| names.get(&oid).cloned()).unwrap_or(text.into())))
                    .collect()
            }
        }
    }

    fn state_bytes(&self, relation: &RelationInfo) -> i64 {
        if is_kept(relation) { self.engine.metrics().view_state_bytes.with_label_values(&[&relation.name]).get() } else { 0 }
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("names", &self.names).finish_non_exhaustive()
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.names, &other.names)
    }
}

impl Eq for Known {}

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.names).hash(state);
    }
}

/// `pg_catalog`, with what is known of the engine's relations besides.
#[derive(Debug)]
pub(super) struct PgCatalog {
    pub(super) theirs: Arc<dyn SchemaProvider>,
    pub(super) known: Known,
}

#[async_trait]
impl SchemaProvider for PgCatalog {
    fn table_names(&self) -> Vec<String> {
        self.theirs.table_names()
    }

    async fn table(&self, name: &str) -> DfResult<Option<Arc<dyn TableProvider>>> {
        let plan = match name {
            "pg_class" => self.classes().await?,
            "pg_views" => self.views("v", ["viewname", "viewowner"], &[]).await?,
            "pg_matviews" => {
                let others = [text_null().alias("tablespace"), lit(false).alias("hasindexes"), lit(true).alias("ispopulated")];
                self.views("m", ["matviewname", "matviewowner"], &others).await?
            }
            _ => return self.theirs.table(name).await,
        };
        Ok(Some(Arc::new(ViewTable::new(plan, None))))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.theirs.table_exist(name)
    }
}

impl PgCatalog {
    async fn scan(&self, name: &str) -> DfResult<LogicalPlanBuilder> {
        let Some(table) = self.theirs.table(name).await? else { return plan_err!("table '{name}' not found") };
        LogicalPlanBuilder::scan(name, provider_as_source(table), None)
    }

    async fn classes(&self) -> DfResult<LogicalPlan> {
        let scan = self.scan("pg_class").await?;
        let is_kept = About::of(Question::IsKept, self.known.clone()).call(vec![col("oid")]);
        let columns = scan.schema().columns();
        let mut exprs = Vec::with_capacity(columns.len() + 2);
        for column in columns {
            exprs.push(match column.name() {
                "relkind" => when(is_kept.clone(), lit("m")).otherwise(Expr::Column(column))?.alias("relkind"),
                _ => Expr::Column(column),
            });
        }
        let no_options = ScalarValue::try_new_null(&DataType::new_list(DataType::Utf8, true))?;
        exprs.extend([lit(no_options).alias("reloptions"), text_null().alias("relacl")]);
        scan.project(exprs)?.build()
    }

    /// A row for each view of a kind; `names` of its name and its owner, and what there is `besides`.
    async fn views(&self, kind: &str, [name, owner]: [&str; 2], besides: &[Expr]) -> DfResult<LogicalPlan> {
        let definition = About::of(Question::Definition, self.known.clone()).call(vec![col("c.oid")]);
        let mut exprs = vec![col("pg_namespace.nspname").alias("schemaname"), col("c.relname").alias(name), lit(OWNER).alias(owner)];
        exprs.extend_from_slice(besides);
        exprs.push(definition.alias("definition"));
        let on = (vec!["c.relnamespace"], vec!["pg_namespace.oid"]);
        LogicalPlanBuilder::from(self.classes().await?)
            .alias("c")?
            .join(self.scan("pg_namespace").await?.build()?, JoinType::Inner, on, None)?
            .filter(col("c.relkind").eq(lit(kind)))?
            .project(exprs)?
            .build()
    }
}

fn text_null() -> Expr {
    lit(ScalarValue::Utf8(None))
}

/// Whether `plan` asks what [`Known`] knows.
pub(super) fn asks(plan: &LogicalPlan) -> DfResult<bool> {
    let mut asks = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                asks |= matches!(expr, Expr::ScalarFunction(call) if call.func.inner().is::<About>());
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(asks)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Question {
    IsKept,
    StateBytes,
    /// Of all relations, whichever database is named.
    AllStateBytes,
    Definition,
}

/// A function of a relation, by its oid or its name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct About {
    question: Question,
    aliases: Vec<String>,
    signature: Signature,
    known: Known,
}

impl About {
    fn of(question: Question, known: Known) -> ScalarUDF {
        let aliases: &[&str] = match question {
            Question::StateBytes => &["pg_relation_size", "pg_total_relation_size"],
            _ => &[],
        };
        let kinds = [DataType::Int64, DataType::Utf8];
        let besides = [None, Some(DataType::Boolean), Some(DataType::Utf8)];
        let taken = besides.iter().flat_map(|second| {
            kinds.iter().map(move |first| TypeSignature::Exact(std::iter::once(first.clone()).chain(second.clone()).collect()))
        });
        let signature = Signature::one_of(taken.collect(), Volatility::Stable);
        ScalarUDF::from(Self { question, aliases: aliases.iter().map(ToString::to_string).collect(), signature, known })
    }
}

impl ScalarUDFImpl for About {
    fn name(&self) -> &str {
        match self.question {
            Question::IsKept => "relation_is_kept",
            Question::StateBytes => "pg_table_size",
            Question::AllStateBytes => "pg_database_size",
            Question::Definition => "pg_get_viewdef",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(match self.question {
            Question::IsKept => DataType::Boolean,
            Question::StateBytes | Question::AllStateBytes => DataType::Int64,
            Question::Definition => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let Some(asked) = args.args.first() else { return plan_err!("{}() takes a relation", self.name()) };
        let relations = self.known.engine.relations();
        let by_name: BTreeMap<&str, &RelationInfo> = relations.iter().map(|relation| (&relation.name[..], relation)).collect();
        let names = self.known.named(&asked.to_array(args.number_rows)?);
        let found = names.iter().map(|name| by_name.get(name.as_deref()?).copied());
        let answers: ArrayRef = match self.question {
            Question::IsKept => Arc::new(BooleanArray::from_iter(found.map(|relation| Some(relation.is_some_and(is_kept))))),
            Question::StateBytes => Arc::new(Int64Array::from_iter(found.map(|relation| Some(self.known.state_bytes(relation?))))),
            Question::Definition => Arc::new(StringArray::from_iter(found.map(|relation| query_of(relation?.definition.as_deref()?)))),
            Question::AllStateBytes => {
                let bytes = relations.iter().map(|relation| self.known.state_bytes(relation)).sum::<i64>();
                Arc::new(Int64Array::from_value(bytes, args.number_rows))
            }
        };
        Ok(ColumnarValue::Array(answers))
    }
}

fn is_kept(relation: &RelationInfo) -> bool {
    matches!(relation.kind, "materialized view" | "detection")
}

/// The query of a view's `CREATE … AS query`, as `\sv` shows it.
fn query_of(created: &str) -> Option<String> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, created).with_unescape(false).tokenize().ok()?;
    let mut behind = tokens.iter().skip_while(|token| !matches!(token, Token::Word(word) if word.keyword == Keyword::AS));
    behind.next()?;
    let query: String = behind.map(ToString::to_string).collect();
    Some(format!(" {};", query.trim().trim_end_matches(';').trim_end()))
}

/// What clients ask of the catalog besides, and `datafusion-postgres` does not answer.
pub(super) fn functions(known: &Known) -> Vec<ScalarUDF> {
    let about = [Question::StateBytes, Question::AllStateBytes, Question::Definition].map(|question| About::of(question, known.clone()));
    let texts = vec![DataType::Utf8, DataType::Utf8, DataType::Boolean];
    // Settings are the client's own: what it is told is what it asked for.
    let set = |args: &[ColumnarValue]| Ok(args[1].clone());
    let set_config = create_udf("set_config", texts, DataType::Utf8, Volatility::Stable, Arc::new(set));
    let pretty = create_udf("pg_size_pretty", vec![DataType::Int64], DataType::Utf8, Volatility::Immutable, Arc::new(pretty_sizes));
    let constants = constants().into_iter().map(|(name, answer)| Constant::of(name, answer));
    about.into_iter().chain([set_config, pretty]).chain(constants).collect()
}

/// What is the same of everything: nothing here has comments, rules, triggers, indexes or a place of its own.
fn constants() -> [(&'static str, ScalarValue); 24] {
    let text = |text: &str| ScalarValue::Utf8(Some(text.into()));
    let (no_text, yes, no) = (ScalarValue::Utf8(None), ScalarValue::Boolean(Some(true)), ScalarValue::Boolean(Some(false)));
    [
        ("version", text(concat!("PostgreSQL 16.6 (Tidegate ", env!("CARGO_PKG_VERSION"), ")"))),
        ("pg_get_userbyid", text(OWNER)),
        ("pg_encoding_to_char", text("UTF8")),
        ("pg_char_to_encoding", ScalarValue::Int32(Some(6))),
        ("pg_tablespace_location", text("")),
        ("pg_tablespace_size", ScalarValue::Int64(None)),
        ("pg_indexes_size", ScalarValue::Int64(Some(0))),
        ("obj_description", no_text.clone()),
        ("shobj_description", no_text.clone()),
        ("col_description", no_text.clone()),
        ("pg_get_function_sqlbody", no_text.clone()),
        ("pg_get_ruledef", no_text.clone()),
        ("pg_get_triggerdef", no_text.clone()),
        ("pg_get_indexdef", no_text.clone()),
        ("pg_get_serial_sequence", no_text.clone()),
        ("inet_server_addr", no_text.clone()),
        ("inet_client_addr", no_text.clone()),
        ("pg_advisory_unlock_all", no_text),
        ("pg_my_temp_schema", ScalarValue::Int32(Some(0))),
        ("pg_is_in_recovery", no.clone()),
        ("pg_is_other_temp_schema", no),
        ("pg_operator_is_visible", yes.clone()),
        ("pg_collation_is_visible", yes.clone()),
        ("has_function_privilege", yes),
    ]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: &'static str,
    answer: ScalarValue,
    signature: Signature,
}

impl Constant {
    fn of(name: &'static str, answer: ScalarValue) -> ScalarUDF {
        let signature = Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], Volatility::Stable);
        ScalarUDF::from(Self { name, answer, signature })
    }
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.answer.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.answer.clone()))
    }
}

fn pretty_sizes(args: &[ColumnarValue]) -> DfResult<ColumnarValue> {
    let sizes = ColumnarValue::values_to_arrays(args)?;
    let texts = sizes[0].as_primitive::<Int64Type>().iter().map(|bytes| bytes.map(pretty));
    Ok(ColumnarValue::Array(Arc::new(texts.collect::<StringArray>())))
}

/// As Postgres rounds: the next unit once there are ten thousand and more of one, half of it away from zero.
fn pretty(bytes: i64) -> String {
    if bytes.unsigned_abs() < 10 << 10 {
        return format!("{bytes} bytes");
    }
    let mut halves = bytes / 512;
    let rounded = |halves: i64| (halves + halves.signum()) / 2;
    for unit in ["kB", "MB", "GB", "TB"] {
        if halves.unsigned_abs() < (20 << 10) - 1 {
            return format!("{} {unit}", rounded(halves));
        }
        halves /= 1024;
    }
    format!("{} PB", rounded(halves))
}

/// Says a question about the server so that it can be planned. Whether it is another one now.
pub(super) fn simplify(statement: &mut Statement) -> bool {
    let mut is_changed = false;
    let _: ControlFlow<()> = visit_expressions_mut(statement, |expr| {
        if let Some(simple) = simple(expr) {
            *expr = simple;
            is_changed = true;
        }
        ControlFlow::Continue(())
    });
    is_changed
}

fn simple(expr: &ast::Expr) -> Option<ast::Expr> {
    let ast::Expr::Function(ast::Function { name, args, .. }) = expr else { return None };
    let args = match args {
        // psql asks by ARRAY(SELECT …) who is a member of what, and nobody is.
        ast::FunctionArguments::Subquery(_) => return parsed("ARRAY[]::TEXT[]"),
        ast::FunctionArguments::List(list) => &list.args[..],
        ast::FunctionArguments::None => return None,
    };
    let Some(ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(first))) = args.first() else { return None };
    match name.0.last()?.as_ident()?.value.to_lowercase().as_str() {
        "array_to_string" if is_text(first) => Some(first.clone()),
        "to_regclass" => cast_to(first, "NULL::regclass"),
        "to_regtype" => cast_to(first, "NULL::regtype"),
        "to_regnamespace" => cast_to(first, "NULL::regnamespace"),
        "to_regproc" => cast_to(first, "NULL::regproc"),
        _ => None,
    }
}

/// What is a list in Postgres, and text, where it is not NULL, in the catalog there is.
fn is_text(column: &ast::Expr) -> bool {
    let name = match column {
        ast::Expr::Identifier(name) => Some(name),
        ast::Expr::CompoundIdentifier(names) => names.last(),
        _ => None,
    };
    name.is_some_and(|name| (name.value.ends_with("acl") && name.value != "datacl") || name.value == "setconfig")
}

fn cast_to(operand: &ast::Expr, example: &str) -> Option<ast::Expr> {
    match parsed(example)? {
        ast::Expr::Cast { kind, data_type, array, format, .. } => {
            Some(ast::Expr::Cast { kind, expr: Box::new(operand.clone()), data_type, array, format })
        }
        _ => None,
    }
}

fn parsed(text: &str) -> Option<ast::Expr> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(text).and_then(|mut parser| parser.parse_expr()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_as_postgres_does() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (10_239, "10239 bytes"),
            (10_240, "10 kB"),
            (-10_240, "-10 kB"),
            (10_752, "11 kB"),
            (10_485_247, "10239 kB"),
            (10_485_248, "10 MB"),
            (1 << 40, "1024 GB"),
            (i64::MAX, "8192 PB"),
        ] {
            assert_eq!(pretty(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn a_view_is_defined_by_its_query() {
        for (created, query) in [
            ("CREATE VIEW v AS SELECT 1 AS \"as\"", Some(" SELECT 1 AS \"as\";")),
            ("create or replace materialized view \"as\" (a) as\n  SELECT 'it''s' ;", Some(" SELECT 'it''s';")),
            ("CREATE DETECTION d WITH (severity = 'as') AS SELECT id -- whom\nFROM t", Some(" SELECT id -- whom\nFROM t;")),
            ("CREATE TABLE t (id INT)", None),
        ] {
            assert_eq!(query_of(created).as_deref(), query, "{created}");
        }
    }

    #[test]
    fn questions_are_said_so_that_they_can_be_planned() {
        for (asked, said) in [
            ("SELECT array_to_string(n.nspacl, ',')", "SELECT n.nspacl"),
            ("SELECT pg_catalog.array_to_string(d.datacl, ',')", "SELECT pg_catalog.array_to_string(d.datacl, ',')"),
            ("SELECT to_regtype($1)", "SELECT $1::regtype"),
            ("SELECT ARRAY(SELECT 1)", "SELECT ARRAY[]::TEXT[]"),
        ] {
            let mut statement = Parser::parse_sql(&PostgreSqlDialect {}, asked).unwrap().remove(0);
            assert_eq!(simplify(&mut statement), asked != said);
            assert_eq!(statement.to_string(), said);
        }
    }
}
