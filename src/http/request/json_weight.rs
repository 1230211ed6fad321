//! What a JSON text weighs once it is parsed, told before it is: two characters can become a struct of
//! hundreds of bytes. One look at each byte; what is no JSON is weighed all the same and refused by the
//! parser.

/// A message or a part of its content, in a list that has just grown to twice its length.
const CONTAINER_BYTES: usize = 400;
/// A text of its own, without its characters; also a field's name.
const TEXT_BYTES: usize = 96;
/// A member of an object, without its name and its value: its place in a table that has just grown, and
/// in one that is made of it.
const MEMBER_BYTES: usize = 256;
/// A number in a list of numbers that has just grown.
const SCALAR_BYTES: usize = 16;

/// Upper bound of the bytes that the values of the text take, the characters of its texts apart.
pub(crate) fn of(json: &[u8]) -> usize {
    let (mut containers, mut texts) = (0_usize, 0_usize);
    let (mut members, mut separators) = (0_usize, 0_usize);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => {
                texts += 1;
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            b'[' | b'{' => containers += 1,
            b':' => members += 1,
            b',' => separators += 1,
            _ => {}
        }
    }
    containers * CONTAINER_BYTES
        + texts * TEXT_BYTES
        + members * MEMBER_BYTES
        + separators * SCALAR_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_hide_what_is_in_them() {
        assert_eq!(of(br#""[{,\"[{,""#), TEXT_BYTES);
        assert_eq!(
            of(br#"["\\",{}]"#),
            2 * CONTAINER_BYTES + TEXT_BYTES + SCALAR_BYTES
        );
        assert_eq!(of(b"\"["), TEXT_BYTES);
        assert_eq!(of(b"\"\\"), TEXT_BYTES);
    }

    #[test]
    fn a_long_text_weighs_little_and_many_values_much() {
        let member = of(br#"{"a":0}"#);
        assert_eq!(member, CONTAINER_BYTES + TEXT_BYTES + MEMBER_BYTES);
        let long = format!("\"{}\"", "x".repeat(1 << 20));
        assert_eq!(of(long.as_bytes()), TEXT_BYTES);
        let many = format!("[{}]", vec!["{}"; 1000].join(","));
        assert!(of(many.as_bytes()) > 1000 * CONTAINER_BYTES);
    }
}
