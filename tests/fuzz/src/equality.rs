//! JSON and MessagePack mean the same: a frame is the same frame however it is lawfully written.
//!
//! The input is a seed of choices and a frame in either encoding. The frame is written anew in both, with its fields
//! moved about, fields that nobody knows put in, and each length in any form; all of them must be read as that frame.

use sealcast::protocol::codec::Encoding;
use sealcast::protocol::frame::{ClientFrame, ServerFrame};

use crate::bytes_of::Input;
use crate::roundtrip::{Frame, survives};
use crate::value::{Value, write_json};

/// How many bytes of the input are choices.
const CHOICES: usize = 24;

/// Checks any bytes.
pub fn check(data: &[u8]) {
    let Some((choices, bytes)) = data.split_at_checked(CHOICES) else { return };
    for encoding in Encoding::ALL {
        if let Ok(frame) = ClientFrame::decode(encoding, bytes) {
            is_the_same_however_written(&frame, choices);
        }
        if let Ok(frame) = ServerFrame::decode(encoding, bytes) {
            is_the_same_however_written(&frame, choices);
        }
    }
}

fn is_the_same_however_written<F: Frame>(frame: &F, choices: &[u8]) {
    survives(frame);
    // Choices are used again and again, from another place each time.
    let choices = choices.repeat(64);
    let tree = serde_json::to_value(frame).expect("a frame can be written");
    let mut text = String::new();
    write_json(&tree, &mut Input::new(&choices), &mut text);
    let read = F::decode(Encoding::Json, text.as_bytes());
    assert_eq!(read.as_ref(), Ok(frame), "{text}");

    let packed = Encoding::MessagePack.encode(frame).expect("a frame can be written");
    let mut rest = &packed[..];
    let mut tree = Value::read(&mut rest).expect("the encoder writes known forms");
    assert!(rest.is_empty(), "one value and nothing after it");
    let mut choices = Input::new(&choices);
    tree.scramble(&mut choices);
    let mut written = Vec::new();
    tree.write(&mut choices, &mut written);
    let read = F::decode(Encoding::MessagePack, &written);
    assert_eq!(read.as_ref(), Ok(frame), "{written:02x?}");
}
