"""Views, moments and discriminants, against scipy's and scikit-learn's."""

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA

from special_steps.classifier.gaussian import (
    LINEAR,
    QUADRATIC,
    TEMPERATURE,
    apply_ensemble,
    class_moments,
    fit_ensemble,
    fit_views,
    project,
    unit_length,
)


@pytest.fixture
def spectra():
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((30, 30)) * np.exp(-np.arange(30) / 6)[:, None]
    return (0.4 + 0.05 * rng.standard_normal((9000, 30)) @ mixing).clip(0, 1).astype("f4")


def test_views_are_principal_components_scaled_by_the_first(spectra):
    views = fit_views(spectra)
    joint = project(views, spectra)
    assert joint.dtype == np.float32
    for name, seen in (("brightness", spectra), ("shape", unit_length(spectra))):
        ours = joint[:, views.parts[name]]
        theirs = PCA(20, svd_solver="full").fit_transform(seen.astype(float))
        theirs /= theirs[:, 0].std()
        signs = np.sign((ours * theirs).sum(0))
        np.testing.assert_allclose(ours * signs, theirs, atol=3e-4)


def test_the_shape_has_no_brightness(spectra):
    dim = 0.5 * (spectra + 0.01) - 0.01
    np.testing.assert_allclose(unit_length(dim), unit_length(spectra), atol=1e-6)


def test_moments_are_those_of_numpy(spectra):
    joint = project(fit_views(spectra), spectra)
    labels = np.random.default_rng(1).integers(-1, 3, len(joint))
    moments = class_moments(joint, labels, 4)
    assert moments.counts.tolist() == [*(int((labels == k).sum()) for k in range(3)), 0]
    for k in range(3):
        own = joint[labels == k].astype(float)
        np.testing.assert_allclose(moments.means[k], own.mean(0), atol=1e-6)
        np.testing.assert_allclose(moments.covariances[k], np.cov(own.T, bias=True), atol=1e-5)
    assert not moments.covariances[3].any()


@pytest.mark.parametrize("members", [LINEAR, QUADRATIC])
def test_an_ensemble_is_the_mean_of_tempered_gaussians(spectra, members):
    views = fit_views(spectra)
    joint = project(views, spectra)
    labels = np.where(joint[:, 0] > 0.5, 0, np.where(joint[:, 1] > 0.1, 1, 3))  # class 2 has none
    labels[5000:5030] = 2
    moments = class_moments(joint, labels, 4)
    found = apply_ensemble(fit_ensemble(moments, views, members), joint)[:, :500]
    wanted = np.zeros((500, 4))
    for view, share in members:
        part = views.parts[view]
        own = moments.covariances[:, part, part]
        pooled = own.mean(0)
        size = len(pooled)
        pooled = pooled + np.diag(1e-3 * np.diag(pooled) + 1e-6 * np.trace(pooled) / size)
        likelihood = []
        for k in range(4):
            s = np.clip(2 * size / moments.counts[k], share, 1)
            normal = multivariate_normal(moments.means[k][part], s * pooled + (1 - s) * own[k])
            likelihood.append(normal.logpdf(joint[:500, part].astype(float)))
        wanted += softmax(np.array(likelihood).T / TEMPERATURE, axis=1)
    np.testing.assert_allclose(found.T, wanted / len(members), atol=2e-3)


def test_a_class_without_pixels_gets_nothing(spectra):
    views = fit_views(spectra)
    joint = project(views, spectra)
    moments = class_moments(joint, (joint[:, 0] > 0) * 2, 3)
    found = apply_ensemble(fit_ensemble(moments, views, LINEAR), joint)
    assert not found[1].any()
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("bands", [1, 2, 3, 30])
@pytest.mark.parametrize("pixels", [1, 2, 10])
@pytest.mark.parametrize("constant", [False, True])
def test_few_pixels_few_bands_and_constant_bands(bands, pixels, constant):
    spectra = np.random.default_rng(0).random((pixels, bands), np.float32)
    if constant:
        spectra[:, ::2] = 0
    views = fit_views(spectra)
    joint = project(views, spectra)
    moments = class_moments(joint, np.arange(pixels) % 2, 2)
    for members in (LINEAR, QUADRATIC):
        found = apply_ensemble(fit_ensemble(moments, views, members), joint)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
