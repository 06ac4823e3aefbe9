"""ModelFlex: fits a trained recurrent network into an edge device's budget without retraining."""
