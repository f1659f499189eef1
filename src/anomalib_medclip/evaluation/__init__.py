"""What a test finds, in every command alike: figures of images, volumes, patients and pixels."""
