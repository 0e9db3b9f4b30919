//! Recognises the instruction before a return address.

use iced_x86::{Decoder, DecoderOptions, FlowControl};

/// The longest call instruction: `call *disp32(base, index, scale)` with a REX and a segment prefix.
pub(super) const LONGEST: usize = 9;

/// True if a call instruction ends where `code` ends.
pub(super) fn ends_with_call(code: &[u8]) -> bool {
    (2..=code.len().min(LONGEST)).any(|length| {
        let instruction = Decoder::new(64, &code[code.len() - length..], DecoderOptions::NONE).decode();
        instruction.len() == length
            && matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_call_is_seen() {
        let forms: [&[u8]; 8] = [
            &[0xe8, 1, 2, 3, 4],
            &[0xff, 0xd0],
            &[0x41, 0xff, 0xd4],
            &[0xff, 0x13],
            &[0xff, 0x54, 0x24, 0x08],
            &[0xff, 0x15, 1, 2, 3, 4],
            &[0x42, 0xff, 0x94, 0xe8, 1, 2, 3, 4],
            &[0x64, 0x42, 0xff, 0x94, 0xe8, 1, 2, 3, 4],
        ];
        for form in forms {
            let mut code = vec![0x90; LONGEST - form.len()];
            code.extend_from_slice(form);
            assert!(ends_with_call(&code), "{form:x?}");
            assert!(ends_with_call(form), "{form:x?}");
        }
    }

    #[test]
    fn other_code_is_no_call() {
        for code in [&[0x90u8; 9][..], &[0xff, 0xe0], &[0xe9, 1, 2, 3, 4], &[0xc3], &[]] {
            assert!(!ends_with_call(code), "{code:x?}");
        }
    }
}
