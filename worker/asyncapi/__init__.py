"""The AsyncAPI 3 document of the messages, for the authors of producers and consumers.

`schemas` derives the messages' JSON schemas from the types and limits that the worker itself uses, `examples` has the
worker's own code make examples of them, `document` puts both on the exchanges and queues of the settings in force.
"""

from worker.asyncapi.document import document_of

__all__ = ["document_of"]
