"""What a run tells people: its report, TensorBoard, the dashboard of all runs."""
