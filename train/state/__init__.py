"""What a training keeps: checkpoints, savepoints, pretrained weights, the moving average."""
