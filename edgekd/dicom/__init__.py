"""DICOM files to pictures: `read` is the way in, the other files are its steps."""
