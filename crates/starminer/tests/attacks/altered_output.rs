//! A coordinator's disk alters or exchanges a stored output: the download is refused, nothing of it is written as a result.

use std::fs;

use starminer_receipt::Outcome;

use crate::support::{Network, example, files_below, runtime, text};

#[test]
fn an_altered_output_is_never_given_out() {
    let network = Network::start(1);
    runtime().block_on(async {
        let requester = network.requester("requester");
        let job =
            network.wasm_job(example("wordcount/wordcount.wasm"), &[("notes.txt", b"some words and words".to_vec())]);
        let task = requester.submit(&job, None, None).await.unwrap();
        let view = requester.wait(&task).await.unwrap();

        // Every blob on the coordinator's disk is damaged while nobody looks.
        let blobs: Vec<_> = files_below(&[network.path("coordinator").join("data")])
            .into_iter()
            .filter(|file| text(file).contains("complete") && fs::metadata(file).unwrap().len() > 0)
            .collect();
        assert!(!blobs.is_empty());
        let mut originals = Vec::new();
        for blob in &blobs {
            let bytes = fs::read(blob).unwrap();
            let mut damaged = bytes.clone();
            *damaged.last_mut().unwrap() ^= 1;
            fs::write(blob, damaged).unwrap();
            originals.push(bytes);
        }
        let out = network.path("requester").join("out");
        let refused = requester.collect(view.clone(), &out).await.unwrap_err();
        assert!(refused.to_string().contains("not the one"), "{refused}");
        let written: Vec<_> = files_below(std::slice::from_ref(&out))
            .into_iter()
            .filter(|file| !text(file).ends_with(".receipt"))
            .collect();
        assert!(written.is_empty(), "{written:?}");

        // The task stays open; when the disk is right again, so is the result.
        for (blob, bytes) in blobs.iter().zip(originals) {
            fs::write(blob, bytes).unwrap();
        }
        let outcome = requester.collect(view, &out).await.unwrap();
        assert_eq!(outcome.outcome, Some(Outcome::Completed));
    });
}
