"""Trackers of runs, through those of accelerate: TensorBoard, Weights & Biases, MLflow, trackio."""
