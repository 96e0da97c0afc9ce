"""The language that brokers and clients speak. Imports nothing but `ebus_jupyter.errors`."""
