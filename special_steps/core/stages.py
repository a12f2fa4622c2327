"""The maps that a run makes on its way, in the order of the methods, and what each of them is."""

STAGES = {
    "pseudo": "the labels of CLIP and the spectral library, fused",
    "cotrain": "co-training of labels and spectra",
    "network": "the networks that learn where both agree",
    "warmup": "after the published method's warm-up",
    "final": "the last epoch of its refinement",
    "consensus": "the run's map: the mean of co-training and networks, or of the refined networks",
    "baseline": "a simple method",
    "applied-cotrain": "what co-training learned on another scene, applied to this one",
    "applied": "what another scene's run learned, applied to this one",
}
