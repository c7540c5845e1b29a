"""The corruptions of Hendrycks and Dietterich, one file each; see :data:`rctk.stress.CORRUPTIONS`.

Written anew in NumPy from the published constants: "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019, https://arxiv.org/abs/1903.12261. The images are alike, not bit-identical.
"""
