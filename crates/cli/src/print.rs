//! Tables as kubectl prints them: columns three blanks apart, no trailing blanks.

use serde_json::Value;

/// Rows of texts with a header.
#[derive(Default)]
pub struct Grid {
    rows: Vec<Vec<String>>,
}

impl Grid {
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines; `widths` are kept from call to call, so that rows of a watch stay under their header.
    pub fn render(&self, widths: &mut Vec<usize>) -> String {
        for row in &self.rows {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                line.push_str(cell);
                if at + 1 < row.len() {
                    let blanks = widths[at] + 3 - cell.chars().count();
                    line.extend(std::iter::repeat_n(' ', blanks));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// How a server's Table is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct TableStyle {
    pub wide: bool,
    pub with_namespace: bool,
    pub no_headers: bool,
    pub show_labels: bool,
}

/// Appends a server's Table; its header only if `header`. `prefix` (`pod/`) goes before each name.
pub fn table(grid: &mut Grid, table: &Value, style: TableStyle, header: bool, prefix: &str) {
    let empty = Vec::new();
    let columns = table["columnDefinitions"].as_array().unwrap_or(&empty);
    let shown: Vec<usize> =
        (0..columns.len()).filter(|at| style.wide || columns[*at]["priority"].as_i64().unwrap_or(0) == 0).collect();
    if header && !style.no_headers {
        let mut names: Vec<String> = Vec::new();
        names.extend(style.with_namespace.then(|| "NAMESPACE".to_owned()));
        names.extend(shown.iter().map(|at| columns[*at]["name"].as_str().unwrap_or("").to_uppercase()));
        names.extend(style.show_labels.then(|| "LABELS".to_owned()));
        grid.row(names);
    }
    for row in table["rows"].as_array().unwrap_or(&empty) {
        let meta = &row["object"]["metadata"];
        let mut cells: Vec<String> = Vec::new();
        cells.extend(style.with_namespace.then(|| meta["namespace"].as_str().unwrap_or("").to_owned()));
        for (position, at) in shown.iter().enumerate() {
            let text = cell(&row["cells"][*at]);
            cells.push(if position == 0 { format!("{prefix}{text}") } else { text });
        }
        cells.extend(style.show_labels.then(|| labels(&meta["labels"])));
        grid.row(cells);
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    }
}

/// `a=b,c=d` or `<none>`.
pub fn labels(labels: &Value) -> String {
    match labels.as_object().filter(|labels| !labels.is_empty()) {
        None => "<none>".to_owned(),
        Some(labels) => {
            let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or(""))).collect();
            pairs.join(",")
        }
    }
}

/// An object as YAML.
pub fn yaml(value: &Value) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(value)?)
}

/// An object as JSON, indented as kubectl does.
pub fn json(value: &Value) -> anyhow::Result<String> {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    serde::Serialize::serialize(value, &mut serializer)?;
    out.push(b'\n');
    Ok(String::from_utf8(out)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_print_as_kubectl_prints_them() {
        let value = json!({"columnDefinitions": [{"name": "Name"}, {"name": "Ready"}, {"name": "IP", "priority": 1}],
            "rows": [{"cells": ["a", "1/1", "10.0.0.1"], "object": {"metadata": {"namespace": "n"}}},
                     {"cells": ["longer", "0/1", null], "object": {"metadata": {"namespace": "n"}}}]});
        let check = |style: TableStyle, expected: &str| {
            let mut grid = Grid::default();
            table(&mut grid, &value, style, true, "");
            assert_eq!(grid.render(&mut Vec::new()), expected);
        };
        check(TableStyle::default(), "NAME     READY\na        1/1\nlonger   0/1\n");
        check(
            TableStyle { wide: true, with_namespace: true, ..TableStyle::default() },
            "NAMESPACE   NAME     READY   IP\nn           a        1/1     10.0.0.1\nn           longer   0/1     <none>\n",
        );
    }
}
