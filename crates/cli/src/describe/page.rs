//! A description while it is written: lines of cells, and the blocks that many kinds have.

use std::collections::BTreeMap;
use std::fmt::Display;

use k8s_openapi::api::core::v1::{Taint, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use xebec_api::Quantity;

use crate::print::escaped;
use crate::tabs;

/// Longer values of annotations get lines of their own, and are cut.
const LONGEST_ANNOTATION: usize = 140;
/// It repeats the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

pub type Labels = BTreeMap<String, String>;

#[derive(Default)]
pub struct Page {
    text: String,
    /// How much deeper than they say lines stand.
    pub nested: usize,
}

impl Page {
    pub fn finish(self) -> String {
        tabs::DESCRIPTION.align(&self.text)
    }

    /// With its tabs as they are.
    pub fn unaligned(self) -> String {
        self.text
    }

    /// A line; its cells end in tabs.
    pub fn line(&mut self, level: usize, text: impl Display) {
        self.put(level, text);
        self.text.push('\n');
    }

    /// A part of a line.
    pub fn put(&mut self, level: usize, text: impl Display) {
        self.text.extend(std::iter::repeat_n("  ", level + self.nested));
        self.text.push_str(&escaped(&text.to_string()));
    }

    pub fn field(&mut self, level: usize, name: &str, value: impl Display) {
        self.line(level, format_args!("{name}:\t{value}"));
    }

    /// The field, if there is a value and it is not empty.
    pub fn optional(&mut self, level: usize, name: &str, value: Option<impl Display>) {
        let value = value.map(|value| value.to_string()).unwrap_or_default();
        if !value.is_empty() {
            self.field(level, name, value);
        }
    }

    /// A table's heading, with its rule.
    pub fn heading(&mut self, level: usize, names: &[&str]) {
        let rules: Vec<String> = names.iter().map(|name| "-".repeat(name.len())).collect();
        self.line(level, names.join("\t"));
        self.line(level, rules.join("\t"));
    }

    /// What follows is aligned by itself.
    pub fn end_columns(&mut self) {
        self.text.push(tabs::BREAK);
    }

    /// Name, namespace (where there is one), labels and annotations, with which most kinds begin.
    pub fn meta(&mut self, meta: &ObjectMeta) {
        self.field(0, "Name", meta.name.as_deref().unwrap_or(""));
        self.optional(0, "Namespace", meta.namespace.as_deref());
        self.labels("Labels", meta.labels.as_ref());
        self.annotations("Annotations", meta.annotations.as_ref());
    }

    /// Lines of one field, the first beside the title.
    pub fn lines(&mut self, title: &str, lines: &[String]) {
        self.put(0, format_args!("{title}:\t"));
        if lines.is_empty() {
            self.text.push_str("<none>\n");
        }
        for (at, line) in lines.iter().enumerate() {
            // Only a line's beginning is set off.
            let indent = if at > 0 { "  ".repeat(self.nested) + "\t" } else { String::new() };
            self.text.push_str(&format!("{indent}{}\n", escaped(line)));
        }
    }

    pub fn labels(&mut self, title: &str, labels: Option<&Labels>) {
        let lines: Vec<String> = labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
        self.lines(title, &lines);
    }

    pub fn annotations(&mut self, title: &str, annotations: Option<&Labels>) {
        let mut lines = Vec::new();
        for (key, value) in annotations.into_iter().flatten().filter(|(key, _)| *key != LAST_APPLIED) {
            let value = value.strip_suffix('\n').unwrap_or(value);
            if value.len() + key.len() + 2 > LONGEST_ANNOTATION || value.contains('\n') {
                lines.push(format!("{key}:"));
                lines.extend(value.split('\n').map(|line| format!("  {}", shortened(line))));
            } else {
                lines.push(format!("{key}: {value}"));
            }
        }
        self.lines(title, &lines);
    }

    pub fn taints(&mut self, taints: Option<&Vec<Taint>>) {
        let mut taints: Vec<&Taint> = taints.into_iter().flatten().collect();
        taints.sort_by_key(|taint| format!("{},{}", taint.effect, taint.key));
        let lines = taints.into_iter().map(|taint| {
            let value = taint.value.as_deref().unwrap_or("");
            match (value, taint.effect.as_str()) {
                ("", "") => taint.key.clone(),
                ("", effect) => format!("{}:{effect}", taint.key),
                (value, effect) => format!("{}={value}:{effect}", taint.key),
            }
        });
        self.lines("Taints", &lines.collect::<Vec<_>>());
    }

    pub fn tolerations(&mut self, title: &str, tolerations: Option<&Vec<Toleration>>) {
        let mut tolerations: Vec<&Toleration> = tolerations.into_iter().flatten().collect();
        tolerations.sort_by_key(|toleration| toleration.key.clone().unwrap_or_default());
        let lines: Vec<String> = tolerations.into_iter().map(toleration).collect();
        self.lines(title, &lines);
    }

    pub fn amounts(&mut self, title: &str, amounts: Option<&BTreeMap<String, ApiQuantity>>) {
        if amounts.is_some_and(|amounts| !amounts.is_empty()) {
            self.line(0, format_args!("{title}:"));
        }
        for (name, amount) in amounts.into_iter().flatten() {
            self.field(1, name, quantity(amount));
        }
    }
}

/// In its shortest form, as the server would write it.
pub fn quantity(amount: &ApiQuantity) -> String {
    amount.0.parse::<Quantity>().map_or_else(|_| amount.0.clone(), |amount| amount.to_string())
}

/// `a=b,c=d` or `<none>`.
pub fn joined(labels: Option<&Labels>) -> String {
    let pairs: Vec<String> = labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    or_none(pairs.join(","))
}

pub fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// `ReplicaSet/a`, of the owner that controls the object.
pub fn controller(meta: &ObjectMeta) -> Option<String> {
    controller_reference(meta).map(|owner| format!("{}/{}", owner.kind, owner.name))
}

pub fn controller_reference(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn shortened(line: &str) -> String {
    let longest = LONGEST_ANNOTATION - 2;
    if line.len() <= longest {
        return line.to_owned();
    }
    let end = (0..=longest).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", &line[..end])
}

fn toleration(toleration: &Toleration) -> String {
    let part = |value: &Option<String>| value.clone().unwrap_or_default();
    let (mut text, value, effect) = (part(&toleration.key), part(&toleration.value), part(&toleration.effect));
    if !value.is_empty() {
        text = format!("{text}={value}");
    }
    if !effect.is_empty() {
        text = format!("{text}:{effect}");
    }
    if toleration.operator.as_deref() == Some("Exists") && value.is_empty() {
        let gap = if text.is_empty() { "" } else { " " };
        text = format!("{text}{gap}op=Exists");
    }
    match toleration.toleration_seconds {
        Some(seconds) => format!("{text} for {seconds}s"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks() {
        let check = |write: &dyn Fn(&mut Page), expected: &str| {
            let mut page = Page::default();
            write(&mut page);
            assert_eq!(page.finish(), expected);
        };
        let labels: Labels = [("a", "1"), ("b", "2")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        check(&|page| page.labels("Labels", Some(&labels)), "Labels:  a=1\n         b=2\n");
        check(&|page| page.labels("Labels", None), "Labels:  <none>\n");
        let annotations: Labels = [("a", "x\ny\n"), (LAST_APPLIED, "{}"), ("b", "z")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        check(
            &|page| page.annotations("Notes", Some(&annotations)),
            "Notes:  a:\n          x\n          y\n        b: z\n",
        );
        let tolerations: Vec<Toleration> = serde_json::from_value(json!([
            {"key": "n", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            {"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoSchedule"}]))
        .unwrap();
        check(
            &|page| page.tolerations("Tolerations", Some(&tolerations)),
            "Tolerations:  op=Exists\n              a=b:NoSchedule\n              n:NoExecute op=Exists for 300s\n",
        );
    }
}
