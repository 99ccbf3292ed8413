"""Floor 1: waveform -> embedding - backbones, pooling, AAM-softmax, the saved model. Knows neither data sets nor scoring."""
