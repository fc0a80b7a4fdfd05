"""Trains the classifier of the diagnosis example and writes every file beside this script.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python train.py

Writes patients.csv, diagnosis.csv, held-out.csv, model.onnx and expected.csv, then checks with onnxruntime that the exported
graph gives what scikit-learn gives. Nothing is fetched: the data set ships inside scikit-learn.

The held-out patients take no part in fitting, in the standardisation, or in the choice of the hyperparameters.
"""

import os

# One BLAS thread: the order of summation, and with it the last bits of the weights, must not depend on the core count.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import csv
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).resolve().parent
SEED = 1
HELD_OUT_FRACTION = 0.25
HIDDEN_UNITS = 16
# Candidates for the L2 penalty; the choice is made by cross-validation over the training patients alone.
PENALTIES = (0.1, 1.0, 3.0, 10.0)
FOLDS = 5
OPSET = 13
IR_VERSION = 8
# A phrase that cannot occur by chance, so that a search for leaked plaintext can look for the model too.
MODEL_CANARY = "CANARY-MODEL-7c1e-heron-on-the-weir"
BENIGN, MALIGNANT = 0, 1


def column_name(feature):
    """`mean concave points` -> `mean_concave_points`, `radius error` -> `radius_error`."""
    return feature.strip().lower().replace(" ", "_")


def write_csv(name, header, rows):
    with open(HERE / name, "w", newline="", encoding="ascii") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def load():
    """The features [569, 30] (float64), labels [569] (1 = malignant) and column names."""
    data = load_breast_cancer()
    # scikit-learn has malignant = 0; here the disease is the positive class.
    assert list(data.target_names) == ["malignant", "benign"]
    labels = np.where(data.target == 0, MALIGNANT, BENIGN)
    return data.data, labels, [column_name(name) for name in data.feature_names]


def pipeline(penalty):
    # L-BFGS over the whole (small) set: no mini-batches, so the seed only sets the starting weights.
    return make_pipeline(
        StandardScaler(),
        MLPClassifier(
            hidden_layer_sizes=(HIDDEN_UNITS,),
            activation="relu",
            solver="lbfgs",
            alpha=penalty,
            max_iter=2000,
            max_fun=100_000,
            random_state=SEED,
        ),
    )


def choose_penalty(features, labels):
    folds = StratifiedKFold(n_splits=FOLDS, shuffle=True, random_state=SEED)
    scored = []
    for penalty in PENALTIES:
        accuracy = cross_val_score(pipeline(penalty), features, labels, cv=folds).mean()
        print(f"  penalty {penalty:<5} cross-validated accuracy {accuracy:.4f}")
        scored.append((accuracy, penalty))
    # The stronger penalty wins a tie.
    return max(scored)[1]


def export(model):
    """The fitted pipeline as plain ONNX operators, standardisation inside: Sub, Div, MatMul, Add, Relu, Softmax, ArgMax."""
    scaler, network = model.steps[0][1], model.steps[1][1]
    assert list(network.classes_) == [BENIGN, MALIGNANT]
    hidden_weights, output_weights = network.coefs_
    hidden_bias, output_bias = network.intercepts_
    # scikit-learn's binary network has one logistic unit z = P(malignant). softmax([0, z]) is [1 - sigmoid(z), sigmoid(z)],
    # so a column of zeros in front turns it into one probability a class.
    output_weights = np.hstack([np.zeros_like(output_weights), output_weights])
    output_bias = np.concatenate([np.zeros_like(output_bias), output_bias])

    constants = {
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "hidden_weights": hidden_weights,
        "hidden_bias": hidden_bias,
        "output_weights": output_weights,
        "output_bias": output_bias,
    }
    graph = helper.make_graph(
        nodes=[
            helper.make_node("Sub", ["features", "mean"], ["centred"], name="centre"),
            helper.make_node("Div", ["centred", "scale"], ["standardised"], name="standardise"),
            helper.make_node("MatMul", ["standardised", "hidden_weights"], ["hidden_product"], name="hidden_matmul"),
            helper.make_node("Add", ["hidden_product", "hidden_bias"], ["hidden_sum"], name="hidden_add"),
            helper.make_node("Relu", ["hidden_sum"], ["hidden"], name="hidden_relu"),
            helper.make_node("MatMul", ["hidden", "output_weights"], ["output_product"], name="output_matmul"),
            helper.make_node("Add", ["output_product", "output_bias"], ["logits"], name="output_add"),
            helper.make_node("Softmax", ["logits"], ["probabilities"], name="softmax", axis=1),
            helper.make_node("ArgMax", ["probabilities"], ["label"], name="argmax", axis=1, keepdims=0),
        ],
        name="breast_cancer_diagnosis",
        inputs=[helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 30])],
        outputs=[
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 2]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
        ],
        initializer=[numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    exported = helper.make_model(
        graph,
        producer_name="starminer-example",
        doc_string="Wisconsin Diagnostic Breast Cancer; probabilities are (benign, malignant); label 1 is malignant.",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(exported, {"canary": MODEL_CANARY})
    onnx.checker.check_model(exported, full_check=True)
    return exported


def rates(truth, predicted):
    wrong = truth != predicted
    missed = int(np.sum(wrong & (truth == MALIGNANT)))
    alarms = int(np.sum(wrong & (truth == BENIGN)))
    right = int(np.sum(~wrong))
    return f"{right}/{len(truth)} = {right / len(truth):.4f} ({missed} malignant missed, {alarms} false alarms)"


def main():
    # Reaching max_iter would mean weights that depend on where it stopped: make it loud.
    warnings.simplefilter("error", ConvergenceWarning)

    features, labels, columns = load()
    patients = np.arange(1, len(labels) + 1)
    # repr of a float64 is the shortest decimal that reads back as the same number: no value is rounded.
    write_csv("patients.csv", ["patient", *columns], ([int(p), *map(float, row)] for p, row in zip(patients, features)))
    write_csv("diagnosis.csv", ["patient", "label"], zip(patients.tolist(), labels.tolist()))

    train, held_out = train_test_split(np.arange(len(labels)), test_size=HELD_OUT_FRACTION, stratify=labels, random_state=SEED)
    held_out.sort()
    train.sort()
    write_csv("held-out.csv", ["patient"], ([int(patients[i])] for i in held_out))
    print(f"{len(labels)} patients, {int(labels.sum())} malignant; {len(train)} to train on, {len(held_out)} held out")

    penalty = choose_penalty(features[train], labels[train])
    print(f"penalty {penalty} chosen")
    model = pipeline(penalty).fit(features[train], labels[train])

    exported = export(model)
    encoded = exported.SerializeToString(deterministic=True)
    (HERE / "model.onnx").write_bytes(encoded)

    session = onnxruntime.InferenceSession(encoded, providers=["CPUExecutionProvider"])
    probabilities, predicted = session.run(["probabilities", "label"], {"features": features.astype(np.float32)})
    assert probabilities.shape == (569, 2) and probabilities.dtype == np.float32
    assert predicted.shape == (569,) and predicted.dtype == np.int64
    difference = np.abs(probabilities - model.predict_proba(features)).max()
    assert difference < 1e-5, difference
    assert (predicted == model.predict(features)).all()
    one = session.run(["label"], {"features": features[:1].astype(np.float32)})[0]
    assert one.shape == (1,) and one[0] == predicted[0]
    write_csv(
        "expected.csv",
        ["patient", "benign", "malignant", "label"],
        ([int(p), f"{b:.6f}", f"{m:.6f}", int(label)] for p, (b, m), label in zip(patients, probabilities, predicted)),
    )

    print(f"model.onnx: {len(encoded)} bytes; largest difference from scikit-learn {difference:.1e}; all labels equal")
    print(f"held-out patients: {rates(labels[held_out], predicted[held_out])}")
    print(f"training patients: {rates(labels[train], predicted[train])}")
    print(f"all patients:      {rates(labels, predicted)}")
    # How sure the closest call is: says how much rounding another engine may add before a label can differ.
    print(f"closest call: {np.abs(probabilities[:, MALIGNANT] - 0.5).min():.4f} from one half")


if __name__ == "__main__":
    main()
