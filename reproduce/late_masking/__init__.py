"""Late masking (Liao et al. 2022): variants pretrained for equal FLOPs, and the record of both."""
