"""Floor 2: audio in - decoding, data set layouts, augmentation, simulation. Knows neither models nor scoring."""
