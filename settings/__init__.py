"""What a config may say: sections, loading, overrides, and the wording of what is wrong with one."""
