//! JSON as a tree that keeps the order of members, repeated names and the spelling of scalars.
//!
//! The mutator needs what a parser would normalise away: our formats have one encoding, so a tree that sorted its members
//! would never get past the first check. It checks no more grammar than it needs to find the parts: a fuzzer does not
//! mind if a scalar is none.

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 64;

/// A JSON text, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Json {
    /// A string with its quotes, a number, `true`, `false` or `null`: as it stood.
    Scalar(String),
    /// An array.
    Array(Vec<Json>),
    /// An object: names with their quotes, in order, repeated ones included.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Takes a text apart. `None` where it is not one JSON value in UTF-8.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut reader = Reader { rest: std::str::from_utf8(text).ok()? };
        let value = reader.value(MAX_DEPTH)?;
        reader.skip_space();
        reader.rest.is_empty().then_some(value)
    }

    /// The text without white space.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Scalar(text) => out.push_str(text),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    out.push_str(name);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// How many values there are, this one included.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Scalar(_) => 1,
            Self::Array(items) => 1 + items.iter().map(Self::count).sum::<usize>(),
            Self::Object(members) => 1 + members.iter().map(|(_, value)| value.count()).sum::<usize>(),
        }
    }

    /// Value number `index`, this one being 0 and the others in the order of the text.
    pub fn nth(&mut self, index: usize) -> Option<&mut Self> {
        let mut left = index;
        self.walk(&mut left)
    }

    fn walk(&mut self, left: &mut usize) -> Option<&mut Self> {
        if *left == 0 {
            return Some(self);
        }
        *left -= 1;
        match self {
            Self::Scalar(_) => None,
            Self::Array(items) => items.iter_mut().find_map(|item| item.walk(left)),
            Self::Object(members) => members.iter_mut().find_map(|(_, value)| value.walk(left)),
        }
    }

    /// Length in bytes and number of every string, in the order of the text.
    #[must_use]
    pub fn strings(&self) -> Vec<(usize, usize)> {
        let (mut found, mut number) = (Vec::new(), 0);
        self.collect_strings(&mut number, &mut found);
        found
    }

    fn collect_strings(&self, number: &mut usize, found: &mut Vec<(usize, usize)>) {
        if let Self::Scalar(text) = self
            && text.starts_with('"')
        {
            found.push((text.len(), *number));
        }
        *number += 1;
        match self {
            Self::Scalar(_) => {}
            Self::Array(items) => items.iter().for_each(|item| item.collect_strings(number, found)),
            Self::Object(members) => members.iter().for_each(|(_, value)| value.collect_strings(number, found)),
        }
    }
}

struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, symbol: char) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(symbol) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        let depth = depth.checked_sub(1)?;
        if self.take('{') {
            return self
                .list('}', |reader| {
                    reader.skip_space();
                    let name = reader.string()?.to_owned();
                    reader.take(':').then_some(())?;
                    Some((name, reader.value(depth)?))
                })
                .map(Json::Object);
        }
        if self.take('[') {
            return self.list(']', |reader| reader.value(depth)).map(Json::Array);
        }
        if self.rest.starts_with('"') {
            return self.string().map(|text| Json::Scalar(text.to_owned()));
        }
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.'))
            .unwrap_or(self.rest.len());
        let (scalar, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!scalar.is_empty()).then(|| Json::Scalar(scalar.to_owned()))
    }

    /// What stands between an opening symbol, which was taken, and `close`.
    fn list<T>(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        if self.take(close) {
            return Some(items);
        }
        loop {
            items.push(item(self)?);
            if self.take(close) {
                return Some(items);
            }
            self.take(',').then_some(())?;
        }
    }

    /// A string with its quotes.
    fn string(&mut self) -> Option<&'t str> {
        let inner = self.rest.strip_prefix('"')?;
        let mut escaped = false;
        let end = inner.bytes().position(|byte| {
            let closes = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        })?;
        let (text, rest) = self.rest.split_at(end + 2);
        self.rest = rest;
        Some(text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn order_repetition_and_spelling_survive() {
        let text = r#"{"b":1e3,"a":[true,null,{"é\"\\":"\u00e9"},[]],"a":-0.50}"#;
        let mut json = Json::parse(text.as_bytes()).unwrap();
        assert_eq!(json.to_text(), text);
        assert_eq!(json.count(), 9);
        assert_eq!(json.nth(6).unwrap().to_text(), r#""\u00e9""#);
        assert_eq!(json.nth(8).unwrap().to_text(), "-0.50");
        assert_eq!(json.nth(9), None);
        assert_eq!(json.strings(), [(8, 6)]);
        assert_eq!(Json::parse(b" [ 1 , 2 ] ").unwrap().to_text(), "[1,2]");
    }

    #[test]
    fn what_is_no_json_is_left_alone() {
        for text in ["", "{", "[1", "[1 2]", "\"", "{\"a\"}", "{a:1}", "1 2", "[,]", "log.example\n8\n", "\"\\\""] {
            assert_eq!(Json::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Json::parse(&[0xff]), None);
        assert_eq!(Json::parse("[".repeat(100_000).as_bytes()), None, "nesting is bounded");
    }
}
