"""The scores of single-label tasks, for all bootstrap resamples at once.

Every decision score follows from the confusion matrix n_ij (true i, predicted j). Library
metrics take one weighting at a time, which would make 2,000 resamples cost minutes, so the
matrices of all resamples are built in one product; scikit-learn is the oracle in the tests.
"""

from __future__ import annotations

import numpy as np

from edgekd.tasks.base import Floats, Ints, Metric

EPS = 1e-12


def confusion(predicted: Ints, targets: Ints, classes: int, weights: Floats) -> Floats:
    """Weighted confusion matrices, one per resample: (R, C, C), rows are the true classes."""
    cell = targets * classes + predicted
    one_hot = np.zeros((targets.size, classes * classes))
    one_hot[np.arange(targets.size), cell] = 1.0
    return np.asarray(weights @ one_hot).reshape(-1, classes, classes)


def _matrices(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    return confusion(probabilities.argmax(axis=1), targets, probabilities.shape[1], weights)


def _divide(above: Floats, below: Floats, empty: float) -> Floats:
    """`above / below`, and `empty` where there is nothing to divide by."""
    out = np.full(np.broadcast(above, below).shape, empty)
    np.divide(above, below, out=out, where=below > 0)
    return out


def accuracy(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """Overall accuracy (OA, top-1): sum_i n_ii / total."""
    right = (probabilities.argmax(axis=1) == targets).astype(np.float64)
    return _divide(weights @ right, weights.sum(axis=1), np.nan)


def recall_per_class(matrix: Floats) -> Floats:
    """TP_c / (TP_c + FN_c), NaN for a class without images: (R, C)."""
    return _divide(np.diagonal(matrix, axis1=1, axis2=2), matrix.sum(axis=2), np.nan)


def mean_accuracy(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """Balanced accuracy (mAcc): mean recall over the classes that occur."""
    return _nanmean(recall_per_class(_matrices(probabilities, targets, weights)))


def f1_per_class(matrix: Floats) -> Floats:
    """2 TP / (2 TP + FP + FN), 0 where undefined: (R, C)."""
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    return _divide(2 * hits, matrix.sum(axis=1) + matrix.sum(axis=2), 0.0)


def macro_f1(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """Unweighted mean of the F1 of all classes that occur or are predicted."""
    matrix = _matrices(probabilities, targets, weights)
    return _mean_over_seen(f1_per_class(matrix), matrix)


def weighted_f1(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """sum_c (n_c / total) F1_c."""
    matrix = _matrices(probabilities, targets, weights)
    share = _divide(matrix.sum(axis=2), matrix.sum(axis=(1, 2))[:, None], np.nan)
    return np.asarray((share * f1_per_class(matrix)).sum(axis=1))


def macro_precision(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """Mean of TP / (TP + FP), 0 where a class is never predicted."""
    matrix = _matrices(probabilities, targets, weights)
    hits = np.diagonal(matrix, axis1=1, axis2=2)
    return _mean_over_seen(_divide(hits, matrix.sum(axis=1), 0.0), matrix)


def macro_recall(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """Mean of TP / (TP + FN), 0 where undefined (differs from mAcc only there)."""
    matrix = _matrices(probabilities, targets, weights)
    return _mean_over_seen(np.nan_to_num(recall_per_class(matrix)), matrix)


def specificity(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """mean_c TN_c / (TN_c + FP_c)."""
    matrix = _matrices(probabilities, targets, weights)
    total = matrix.sum(axis=(1, 2))[:, None]
    negatives = total - matrix.sum(axis=2)
    false_alarms = matrix.sum(axis=1) - np.diagonal(matrix, axis1=1, axis2=2)
    return _nanmean(_divide(negatives - false_alarms, negatives, np.nan))


def expected_mae(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """mean_b | sum_c c p_bc - y_b |: UMKD's MAE, on the expected grade."""
    expected = probabilities @ np.arange(probabilities.shape[1])
    return _divide(weights @ np.abs(expected - targets), weights.sum(axis=1), np.nan)


def argmax_mae(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """mean_b | argmax_c p_bc - y_b |."""
    error = np.abs(probabilities.argmax(axis=1) - targets).astype(np.float64)
    return _divide(weights @ error, weights.sum(axis=1), np.nan)


def quadratic_kappa(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """Cohen's kappa with quadratic weights (i - j)^2; NaN where chance agreement is total."""
    matrix = _matrices(probabilities, targets, weights)
    grades = np.arange(matrix.shape[1])
    cost = (grades[:, None] - grades[None, :]) ** 2
    total = matrix.sum(axis=(1, 2))
    chance = matrix.sum(axis=2)[:, :, None] * matrix.sum(axis=1)[:, None, :]
    observed = (matrix * cost).sum(axis=(1, 2))
    expected = _divide((chance * cost).sum(axis=(1, 2)), total, np.nan)
    return 1.0 - _divide(observed, expected, np.nan)


def macro_auroc(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """Mean one-vs-rest area under the ROC curve over classes with positives and negatives."""
    from sklearn.metrics import roc_auc_score

    def once(weight: Floats) -> float:
        present = weight > 0
        areas = [
            roc_auc_score(
                targets[present] == c, probabilities[present, c], sample_weight=weight[present]
            )
            for c in range(probabilities.shape[1])
            if 0 < (targets[present] == c).sum() < present.sum()
        ]
        return float(np.mean(areas)) if areas else float("nan")

    return np.array([once(weight) for weight in weights])


def ece(probabilities: Floats, targets: Ints, weights: Floats, *, bins: int = 15) -> Floats:
    """Expected calibration error of the top-1 confidence, 15 bins of equal width (Guo 2017)."""
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == targets).astype(np.float64)
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    one_hot = np.zeros((targets.size, bins))
    one_hot[np.arange(targets.size), index] = 1.0
    gap = np.abs(weights @ (one_hot * (right - confidence)[:, None])).sum(axis=1)
    return _divide(gap, weights.sum(axis=1), np.nan)


def brier(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """Mean squared distance between the probability vector and the one-hot target."""
    one_hot = np.eye(probabilities.shape[1])[targets]
    error = ((probabilities - one_hot) ** 2).sum(axis=1)
    return _divide(weights @ error, weights.sum(axis=1), np.nan)


def nll(probabilities: Floats, targets: Ints, weights: Floats) -> Floats:
    """Mean negative log-likelihood of the true class."""
    chosen = np.log(np.maximum(probabilities[np.arange(targets.size), targets], EPS))
    return _divide(weights @ -chosen, weights.sum(axis=1), np.nan)


def _nanmean(values: Floats) -> Floats:
    seen = np.isfinite(values)
    return _divide(np.where(seen, values, 0.0).sum(axis=1), seen.sum(axis=1), np.nan)


def _mean_over_seen(values: Floats, matrix: Floats) -> Floats:
    """Mean over the classes that occur or are predicted, as scikit-learn's macro average."""
    seen = (matrix.sum(axis=1) + matrix.sum(axis=2)) > 0
    return _divide(np.where(seen, values, 0.0).sum(axis=1), seen.sum(axis=1), np.nan)


SINGLE_LABEL = {
    "accuracy": Metric(accuracy, label="Accuracy (OA)"),
    "macc": Metric(mean_accuracy, label="Balanced accuracy (mAcc)", over_classes=True),
    "macro_f1": Metric(macro_f1, label="Macro F1", over_classes=True),
    "weighted_f1": Metric(weighted_f1, label="Weighted F1"),
    "precision": Metric(macro_precision, label="Macro precision", over_classes=True),
    "recall": Metric(macro_recall, label="Macro recall", over_classes=True),
    "specificity": Metric(specificity, label="Specificity", over_classes=True),
    "auroc": Metric(macro_auroc, interval=False, label="Macro AUROC"),
    "ece": Metric(ece, "lower", label="Calibration error (ECE)"),
    "brier": Metric(brier, "lower", label="Brier score"),
    "nll": Metric(nll, "lower", label="Negative log-likelihood"),
}

ORDINAL = {
    "qwk": Metric(quadratic_kappa, label="Quadratic-weighted kappa", over_classes=True),
    "mae": Metric(expected_mae, "lower", label="MAE (expected grade)"),
    "mae_argmax": Metric(argmax_mae, "lower", label="MAE (argmax)"),
}
