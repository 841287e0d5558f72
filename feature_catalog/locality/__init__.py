"""Which features of a data set could live on the device, and which in the cloud."""
