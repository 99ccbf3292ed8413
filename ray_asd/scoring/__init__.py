"""Floor 2: embedding -> score - k-NN, thresholds, metrics. numpy, faiss and scikit-learn only."""
