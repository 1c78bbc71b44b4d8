//! Small texts for people: sizes, times, counts, columns, and who moved what to whom. Knows nothing of how they are found out.

use std::collections::BTreeSet;
use std::time::Duration;

use transload_protocol::{Transfer, WorkerId};

/// A size in the unit that keeps it short, as in `1.5 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    // Only shown, never computed with: the rounding of f64 does not matter.
    let mut value = bytes as f64;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 {
        format!("{bytes} {name}")
    } else if value < 10.0 {
        format!("{value:.1} {name}")
    } else {
        format!("{value:.0} {name}")
    }
}

/// A count with its digits in groups of three, and the noun in the right number.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// A number with its digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time in seconds, to the millisecond while that means something.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 10.0 {
        format!("{seconds:.3} s")
    } else {
        format!("{seconds:.1} s")
    }
}

/// A text of somebody else as one line that a terminal shows and does not obey: nothing in it moves the cursor, changes colours, or turns
/// the direction of what stands behind it.
pub(crate) fn plain(text: &str) -> String {
    let shown = |character: char| match character {
        '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => '\u{fffd}',
        control if control.is_control() => '\u{fffd}',
        other => other,
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().map(shown).collect()
}

/// Rows of cells as aligned columns, two blanks apart; each row ends in a line break. Numbers are aligned to the right. Cells may be
/// texts of somebody else.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| plain(cell)).collect())
        .collect();
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let widths: Vec<usize> = (0..count)
        .map(|column| {
            rows.iter()
                .map(|row| cell(row, column).chars().count())
                .max()
        })
        .map(Option::unwrap_or_default)
        .collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, width) in widths.iter().enumerate() {
            let cell = cell(row, column);
            let blanks = " ".repeat(width - cell.chars().count());
            let number = column > 0 && cell.starts_with(|c: char| c.is_ascii_digit());
            line.push_str(&if number {
                format!("{blanks}{cell}  ")
            } else {
                format!("{cell}{blanks}  ")
            });
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Bytes moved between workers as a matrix, from rows to columns. `name` names a worker.
pub(crate) fn transfers(transfers: &[Transfer], name: impl Fn(WorkerId) -> String) -> String {
    let workers: BTreeSet<WorkerId> = transfers
        .iter()
        .flat_map(|transfer| [transfer.from, transfer.to])
        .collect();
    let mut rows = vec![vec!["from \\ to".to_owned()]];
    rows[0].extend(workers.iter().map(|worker| name(*worker)));
    for from in &workers {
        let mut row = vec![name(*from)];
        row.extend(workers.iter().map(|to| {
            let moved: u64 = transfers
                .iter()
                .filter(|transfer| transfer.from == *from && transfer.to == *to)
                .map(|transfer| transfer.bytes)
                .sum();
            if moved == 0 {
                "-".to_owned()
            } else {
                bytes(moved)
            }
        }));
        rows.push(row);
    }
    columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_counts_and_times_read_well() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(20 << 20), "20 MiB");
        assert_eq!(count(1, "row"), "1 row");
        assert_eq!(count(1_234_567, "row"), "1,234,567 rows");
        assert_eq!(time(Duration::from_millis(1_234)), "1.234 s");
        assert_eq!(time(Duration::from_millis(61_250)), "61.2 s");
    }

    #[test]
    fn what_others_have_written_is_one_line_without_anything_that_a_terminal_obeys() {
        assert_eq!(plain("SELECT 1\n  FROM t\t\n"), "SELECT 1 FROM t");
        assert_eq!(
            plain("a\u{1b}[31mb\u{7}\u{9b}0m"),
            "a\u{fffd}[31mb\u{fffd}\u{fffd}0m"
        );
        assert_eq!(
            plain("\u{202e}txt\u{200d}\u{2066}"),
            "\u{fffd}txt\u{fffd}\u{fffd}"
        );
        assert_eq!(plain("größe 数"), "größe 数");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["name", "n"], ["a", "10"], ["longer", "7"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(columns(&rows), "name    n\na       10\nlonger   7\n");
    }

    #[test]
    fn the_matrix_has_a_row_and_a_column_per_worker() {
        let moved = Transfer {
            from: WorkerId(1),
            to: WorkerId(0),
            partitions: 2,
            bytes: 2048,
            transport: "tcp".to_owned(),
            bytes_per_s: 0,
            demotion: None,
        };
        assert_eq!(
            transfers(&[moved], |worker| worker.to_string()),
            "from \\ to  w0       w1\nw0         -        -\nw1         2.0 KiB  -\n"
        );
    }
}
