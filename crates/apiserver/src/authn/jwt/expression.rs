//! CEL expressions over the claims of a token, or over the user that they became.

use kube_cel::KubeCelExt;
use kube_cel::cel::common::ast::{EntryExpr, Expr, IdedEntryExpr, IdedExpr};
use kube_cel::cel::{Context, Program, Value};
use serde_json::Value as Json;

/// A compiled expression over one variable.
pub struct Expression {
    text: String,
    program: Program,
    variable: &'static str,
}

impl Expression {
    pub fn compile(text: &str, variable: &'static str) -> Result<Self, String> {
        let program = Program::compile(text).map_err(|errors| errors.to_string())?;
        if let Some(stranger) = stranger(&program.expression().expr, &[variable]) {
            return Err(format!("undeclared reference to '{stranger}'"));
        }
        Ok(Expression { text: text.to_owned(), program, variable })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Strings, truths, lists of strings and nothing are told apart; whatever else comes out is an error.
    pub fn evaluate(&self, value: &Json) -> Result<Outcome, String> {
        let mut context = Context::default().with_all();
        context.add_variable(self.variable, value).map_err(|error| error.to_string())?;
        let value = self
            .program
            .execute(&context)
            .map_err(|error| format!("expression '{}' resulted in error: {error}", self.text))?;
        Ok(match value {
            Value::Null => Outcome::Nothing,
            Value::Bool(truth) => Outcome::Truth(truth),
            Value::String(text) => Outcome::Text(text.to_string()),
            Value::List(items) => {
                let texts = items.iter().map(|item| match item {
                    Value::String(text) => Some(text.to_string()),
                    _ => None,
                });
                texts.collect::<Option<Vec<_>>>().map_or(Outcome::Other, Outcome::Texts)
            }
            _ => Outcome::Other,
        })
    }
}

/// The first name in the expression that is neither known nor bound by a macro around it.
fn stranger<'e>(expression: &'e Expr, known: &[&'e str]) -> Option<&'e str> {
    let among = |all: &'e [IdedExpr]| all.iter().find_map(|one| stranger(&one.expr, known));
    let entries = |all: &'e [IdedEntryExpr]| {
        all.iter().find_map(|one| match &one.expr {
            EntryExpr::StructField(field) => stranger(&field.value.expr, known),
            EntryExpr::MapEntry(entry) => {
                stranger(&entry.key.expr, known).or_else(|| stranger(&entry.value.expr, known))
            }
        })
    };
    match expression {
        Expr::Unspecified | Expr::Literal(_) => None,
        Expr::Ident(name) => (!known.contains(&name.as_str())).then_some(name),
        Expr::Select(select) => stranger(&select.operand.expr, known),
        Expr::List(list) => among(&list.elements),
        Expr::Map(map) => entries(&map.entries),
        Expr::Struct(made) => entries(&made.entries),
        Expr::Call(call) => {
            // The receiver of a function in a namespace (`sets.contains`) reads like a variable and is none.
            let target =
                call.target.as_ref().filter(|target| !matches!(&target.expr, Expr::Ident(name) if is_library(name)));
            target.and_then(|target| stranger(&target.expr, known)).or_else(|| among(&call.args))
        }
        Expr::Comprehension(made) => {
            let mut within = known.to_vec();
            within.extend([made.iter_var.as_str(), made.accu_var.as_str()]);
            within.extend(made.iter_var2.as_deref());
            stranger(&made.iter_range.expr, known)
                .or_else(|| stranger(&made.accu_init.expr, known))
                .or_else(|| stranger(&made.loop_cond.expr, &within))
                .or_else(|| stranger(&made.loop_step.expr, &within))
                .or_else(|| stranger(&made.result.expr, &within))
        }
    }
}

fn is_library(name: &str) -> bool {
    matches!(name, "sets" | "math" | "strings" | "base64" | "jsonpatch" | "format" | "optional")
}

/// What an expression came to.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Nothing,
    Truth(bool),
    Text(String),
    Texts(Vec<String>),
    /// Of a type that nothing here can be.
    Other,
}

impl Outcome {
    /// A string or a list of strings; empty ones do not count.
    pub fn texts(self) -> Result<Vec<String>, String> {
        let mut texts = match self {
            Outcome::Nothing => Vec::new(),
            Outcome::Text(text) => vec![text],
            Outcome::Texts(texts) => texts,
            _ => return Err("expression must return a string or a list of strings".to_owned()),
        };
        texts.retain(|text| !text.is_empty());
        Ok(texts)
    }
}
