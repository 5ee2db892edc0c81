"""Floor 2: how good proposals and detections are, by COCO's own measures, and baselines to compare with."""
