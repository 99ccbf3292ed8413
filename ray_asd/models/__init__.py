"""Floor 2: waveform -> embedding: backbones, pooling, AAM-softmax, the saved model. Knows no data set, no scoring."""
