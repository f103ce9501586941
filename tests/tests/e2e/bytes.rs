//! Arbitrary bytes pass unchanged.

use std::time::Duration;

use e2e::{Growth, Rig, text};

const MIB: usize = 1 << 20;

fn comes_out_as_it_went_in(framing: &str, bytes: &[u8]) {
    let rig = Rig::new();
    rig.write_input(bytes);
    rig.reader().once().set("--framing", framing).run_ok();
    rig.writer().once().run_ok();
    rig.assert_identical();
    assert_eq!(rig.pending(), 0);
}

#[test]
fn hard_bytes_as_lines() {
    comes_out_as_it_went_in("line", &text::hard(1, 20 * MIB));
}

#[test]
fn hard_bytes_as_chunks() {
    comes_out_as_it_went_in("chunk", &text::hard(2, 20 * MIB));
}

#[test]
fn a_line_too_long_for_one_entry_goes_in_parts_and_comes_out_whole() {
    let mut bytes = text::numbered(0..10, 1);
    bytes.extend(std::iter::repeat_n(b'x', 150 * MIB));
    bytes.push(b'\n');
    bytes.extend(text::numbered(10..20, 1));
    for framing in ["line", "chunk"] {
        comes_out_as_it_went_in(framing, &bytes);
    }
}

#[test]
fn a_file_of_one_line_without_newline() {
    for framing in ["line", "chunk"] {
        comes_out_as_it_went_in(framing, b"x");
        comes_out_as_it_went_in(framing, &vec![b'y'; 3 * MIB]);
    }
}

#[test]
fn nothing_but_newlines() {
    for framing in ["line", "chunk"] {
        comes_out_as_it_went_in(framing, &vec![b'\n'; 300_000]);
    }
}

#[test]
fn hard_bytes_that_arrive_in_pieces_while_both_run() {
    let seed = e2e::seed();
    for framing in ["line", "chunk"] {
        let rig = Rig::new();
        let mut growth = Growth::of(&rig.input, text::hard(seed, 2 * MIB), Duration::from_secs(3), seed);
        let mut reader = rig.reader().set("--framing", framing).start();
        let mut writer = rig.writer().start();
        growth.wait();
        // The last line may still grow, so it is not sent until it ends or the reader flushes.
        rig.append_input("\n");
        rig.wait_delivered();
        reader.stop();
        writer.stop();
        rig.assert_identical();
    }
}

#[test]
fn lines_of_64_mib_do_not_multiply_in_memory() {
    const LINE: usize = 64 * MIB;
    let rig = Rig::new();
    let mut bytes = Vec::with_capacity(4 * LINE);
    for letter in b'a'..=b'd' {
        bytes.extend(std::iter::repeat_n(letter, LINE - 1));
        bytes.push(b'\n');
    }
    rig.write_input(bytes);
    let mut reader = rig.reader().start();
    let mut writer = rig.writer().start();
    rig.wait_delivered();
    // One line being sent or written, and one being received; no further ones.
    for service in [&reader, &writer] {
        let peak = service.process().peak_memory().expect("it runs");
        assert!(peak < 3 * LINE as u64, "{} had {peak} bytes in memory", service.process().name());
    }
    reader.stop();
    writer.stop();
    rig.assert_identical();
}
