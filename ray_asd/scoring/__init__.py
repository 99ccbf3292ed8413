"""Floor 1: embedding -> score - k-NN, thresholds, metrics. numpy, faiss and scikit-learn only."""
