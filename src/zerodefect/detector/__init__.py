"""The machinery of methods: the contract, registry, family bases, recipes, files, loading."""
