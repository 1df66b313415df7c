"""The endpoints, a file for each part of the API: parse, call the service, answer."""
