"""fairseg-lite: DeepMask, SharpMask and MultiPathNet in PyTorch, small enough to read.

picture --trunk--> features --DeepMask--> coarse masks + scores --SharpMask--> sharp masks --MultiPathNet--> named objects
"""

__version__ = "0.1.0"
