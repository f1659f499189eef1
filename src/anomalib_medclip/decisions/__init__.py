"""From scores of images to decisions about patients, each with how often it is wrong."""
