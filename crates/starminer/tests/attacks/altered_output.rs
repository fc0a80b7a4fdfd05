//! A coordinator's disk alters or exchanges a stored output: the download is refused, nothing of it is written as a result.

use std::fs;

use starminer_receipt::Outcome;

use crate::support::guests::counts_then_writes;
use crate::support::{Network, files_below, runtime, text};

#[test]
fn an_altered_output_is_never_given_out() {
    let network = Network::start(1);
    runtime().block_on(async {
        let requester = network.requester("requester");
        // Two tasks, with outputs longer than what the coordinator keeps inside its database.
        let job = network.wasm_job(counts_then_writes(0, 5), &[]);
        let mut views = Vec::new();
        for _ in 0..2 {
            let task = requester.submit(&job, None, None).await.unwrap();
            views.push(requester.wait(&task).await.unwrap());
        }
        let blobs = files_below(&[network.path("coordinator").join("data/blobs/complete")]);
        let [first, second] = blobs.as_slice() else { panic!("the outputs, and nothing else, are files: {blobs:?}") };
        let originals = [fs::read(first).unwrap(), fs::read(second).unwrap()];
        let damaged = originals.clone().map(|mut bytes| {
            bytes[100_000] ^= 1;
            bytes
        });
        let exchanged = [originals[1].clone(), originals[0].clone()];
        let put = |contents: &[Vec<u8>; 2]| {
            fs::write(first, &contents[0]).unwrap();
            fs::write(second, &contents[1]).unwrap();
        };

        for (index, view) in views.into_iter().enumerate() {
            let out = network.path("requester").join(format!("out{index}"));
            for bad in [&damaged, &exchanged] {
                put(bad);
                let refused = requester.collect(view.clone(), &out).await.unwrap_err();
                assert!(refused.to_string().contains("not the one"), "{refused}");
                let written: Vec<_> = files_below(std::slice::from_ref(&out))
                    .into_iter()
                    .filter(|file| !text(file).ends_with(".receipt"))
                    .collect();
                assert!(written.is_empty(), "{written:?}");
            }
            // The task stays open; when the disk is right again, so is the result.
            put(&originals);
            let outcome = requester.collect(view, &out).await.unwrap();
            assert_eq!(outcome.outcome, Some(Outcome::Completed));
            assert_eq!(fs::metadata(out.join("big.bin")).unwrap().len(), 5 * 65_536);
        }
    });
}
