"""A YAML file whose complaints name their line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from m2rl_core.errors import ConfigError
from m2rl_core.validation import Problem, dotted

__all__ = ["Tree", "YamlFile"]

Tree = Mapping[str, object]


class YamlFile:
    """A YAML file as data and, for line numbers, as nodes.

    Args:
        path: of the file.
        what: it is to be, for messages: ``study``.
        keys: that it should have, for messages.

    Raises:
        ConfigError: it cannot be read, is no YAML, says a key twice, holds itself, or is no mapping.
    """

    def __init__(self, path: Path, what: str, *, keys: str) -> None:
        self.path = path
        try:
            loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
            self.root = loader.get_single_node()
            if self.root is not None:
                self._refuse_strange(self.root, {})
                tree = loader.construct_document(self.root)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        except RecursionError:
            raise ConfigError(f"{path} is no {what}: lists and mappings lie too deep in each other") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f"{path}:{mark.line + 1}" if mark else str(path)
            raise ConfigError(f"{place}: no YAML: {getattr(error, 'problem', None) or error}") from None
        if not isinstance(self.root, yaml.MappingNode):
            raise ConfigError(f"{path} is no {what}: it should hold keys such as {keys}")
        self.tree: Tree = tree

    def line(self, keys: Sequence[int | str]) -> int:
        """The line of the key at ``keys``, or of the last of them that is there."""
        node, line = self.root, 1
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                # constructing the data has put merged keys before a mapping's own, which win
                found = next(((k, v) for k, v in reversed(node.value) if k.value == str(key)), None)
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                found = node.value[key], node.value[key]
            else:
                found = None
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        return line

    def place(self, problem: Problem) -> str:
        """``FILE:LINE`` of a problem."""
        return f"{self.path}:{self.line(problem.path)}"

    def refusal(self, found: Sequence[Problem], place: Callable[[Problem], str] | None = None) -> ConfigError:
        """All problems, each after its place; those of a block that several keys merge stand together."""
        together: dict[tuple[str, str], list[str]] = {}
        for problem in found:
            together.setdefault(((place or self.place)(problem), problem.text), []).append(dotted(problem.path))
        lines = (f"{place}: {', '.join(paths)}: {text}" for (place, text), paths in together.items())
        return ConfigError("\n".join(lines))

    def _refuse_strange(self, node: yaml.Node, whole: dict[int, bool]) -> None:
        """A key that is there twice, and a list or mapping that holds itself.

        Args:
            whole: id of each node that was met → whether all below it was.
        """
        if whole.get(id(node)):
            return
        if id(node) in whole:
            raise ConfigError(f"{self.path}:{node.start_mark.line + 1}: what begins here holds itself, by an alias")
        whole[id(node)] = False
        if isinstance(node, yaml.MappingNode):
            self._refuse_duplicates(node)
        for child in _children(node):
            self._refuse_strange(child, whole)
        whole[id(node)] = True

    def _refuse_duplicates(self, node: yaml.MappingNode) -> None:
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line, same = key.start_mark.line + 1, (key.tag, key.value)
            if same in lines:
                raise ConfigError(f"{self.path}:{line}: key '{key.value}' is already there on line {lines[same]}")
            lines[same] = line


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    for item in node.value if isinstance(node, yaml.CollectionNode) else ():
        yield from item if isinstance(item, tuple) else (item,)
