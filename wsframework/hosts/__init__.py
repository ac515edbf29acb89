"""Other servers that an App can run on; the native one is `wsframework.server`."""
