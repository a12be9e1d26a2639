//! Text whose cells end in tabs, aligned in columns as Go's `text/tabwriter` aligns it, which kubectl prints everything through.
//!
//! A column is a run of adjacent lines that have a cell there; its width is that of its widest cell, and what follows the last
//! tab of a line belongs to no column. So a line without tabs ends all columns above it.

/// How wide columns are at least, and what stands between them.
#[derive(Clone, Copy, Debug)]
pub struct Tabs {
    pub min_width: usize,
    pub padding: usize,
}

/// kubectl's tables.
pub const TABLE: Tabs = Tabs { min_width: 6, padding: 3 };
/// kubectl's descriptions.
pub const DESCRIPTION: Tabs = Tabs { min_width: 0, padding: 2 };

/// Ends every column; Go's tabwriter takes a form feed so.
pub const BREAK: char = '\x0c';

impl Tabs {
    pub fn align(self, text: &str) -> String {
        self.aligned(text, None)
    }

    /// No column gets narrower than `widths` has it, which is how the rows of a watch stay under their header.
    pub fn align_remembering(self, text: &str, widths: &mut Vec<usize>) -> String {
        self.aligned(text, Some(widths))
    }

    fn aligned(self, text: &str, widths: Option<&mut Vec<usize>>) -> String {
        let mut aligned =
            Aligned { tabs: self, out: String::with_capacity(text.len() * 2), current: Vec::new(), widths };
        for section in text.split(BREAK) {
            let lines: Vec<Vec<&str>> = section.split_inclusive('\n').map(|line| line.split('\t').collect()).collect();
            aligned.format(&lines);
        }
        aligned.out
    }
}

struct Aligned<'a> {
    tabs: Tabs,
    out: String,
    /// The widths of the columns that the present block stands in.
    current: Vec<usize>,
    /// Those of all columns so far, if they are to be remembered.
    widths: Option<&'a mut Vec<usize>>,
}

impl Aligned<'_> {
    fn format(&mut self, mut lines: &[Vec<&str>]) {
        let column = self.current.len();
        while let Some(start) = lines.iter().position(|line| line.len() > column + 1) {
            self.write(&lines[..start]);
            lines = &lines[start..];
            let end = lines.iter().position(|line| line.len() <= column + 1).unwrap_or(lines.len());
            let width = self.width(&lines[..end], column);
            self.current.push(width);
            self.format(&lines[..end]);
            self.current.pop();
            lines = &lines[end..];
        }
        self.write(lines);
    }

    fn width(&mut self, lines: &[Vec<&str>], column: usize) -> usize {
        let widest = lines.iter().map(|line| line[column].chars().count() + self.tabs.padding).max().unwrap_or(0);
        let mut width = widest.max(self.tabs.min_width);
        if let Some(widths) = &mut self.widths {
            widths.resize(widths.len().max(column + 1), 0);
            width = width.max(widths[column]);
            widths[column] = width;
        }
        width
    }

    fn write(&mut self, lines: &[Vec<&str>]) {
        for line in lines {
            for (at, cell) in line.iter().enumerate() {
                self.out.push_str(cell);
                if let Some(width) = self.current.get(at).filter(|_| at + 1 < line.len()) {
                    self.out.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_runs_of_lines() {
        let check = |tabs: Tabs, text: &str, expected: &str| assert_eq!(tabs.align(text), expected);
        check(DESCRIPTION, "a:\tb\nlong:\tc\n", "a:     b\nlong:  c\n");
        check(DESCRIPTION, "a:\tb\nalone\nlonger:\tc\n", "a:  b\nalone\nlonger:  c\n");
        check(DESCRIPTION, "a\tb\tc\nx\tlonger\ty\nz\n", "a  b       c\nx  longer  y\nz\n");
        check(DESCRIPTION, "a:\tb\n\x0clonger:\tc", "a:  b\nlonger:  c");
        check(DESCRIPTION, "L:\tx\n\ty\n", "L:  x\n    y\n");
        check(DESCRIPTION, "longer:\tx\nalone\na:\ty\n", "longer:  x\nalone\na:  y\n");
        check(TABLE, "NAME\tUP\tAGE\na\tb\tc\n", "NAME   UP    AGE\na      b     c\n");
    }

    #[test]
    fn widths_are_remembered() {
        let mut widths = Vec::new();
        assert_eq!(TABLE.align_remembering("LONGER\tAGE\n", &mut widths), "LONGER   AGE\n");
        assert_eq!(TABLE.align_remembering("a\tb\n", &mut widths), "a        b\n");
    }
}
