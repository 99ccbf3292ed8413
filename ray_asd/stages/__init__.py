"""What is built, in the order of the data: recordings, training, detection, comparison."""
