"""What the README asks people to type, and the files it names, exist."""

import re
import shlex
from pathlib import Path

import pytest
from support import REPOSITORY

from basicsr_distill.cli import build_parser

README = (REPOSITORY / 'README.md').read_text(encoding='utf-8')
# Shell built-ins and what a user does with their own files.
OTHERS = {'source', 'cp', 'pip'}


def commands() -> list[str]:
    blocks = re.findall(r'```bash\n(.*?)```', README, flags=re.S)
    lines = [line.split('#')[0].strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r'`(torchrun [^`]+|basicsr [a-z]+ -opt [^`]+)`', README)
    return [line for line in lines + inline if line]


@pytest.mark.parametrize('line', commands())
def test_commands_are_understood(line: str) -> None:
    words = shlex.split(line.replace('$(which basicsr)', 'basicsr'))
    if words[0] == 'torchrun':
        words = words[words.index('basicsr') :]
    if words[0] == 'basicsr':
        arguments = build_parser().parse_args(words[1:])
        assert arguments.command == words[1]
        named = getattr(arguments, 'opt', None)
        assert named is None or str(named).startswith(('my', 'X', 'FILE')) or (REPOSITORY / named).is_file()
    elif words[:2] == ['python', '-m']:
        assert (REPOSITORY / words[2].replace('.', '/')).with_suffix('.py').is_file()
    elif words[0] in ('bash', 'python'):
        assert (REPOSITORY / words[1]).is_file()
    else:
        assert words[0] in OTHERS


@pytest.mark.parametrize('link', sorted(set(re.findall(r'\]\(([^)#]+)\)', README))))
def test_links_lead_somewhere(link: str) -> None:
    assert link.startswith('https://') or (REPOSITORY / link).is_file()


@pytest.mark.parametrize(
    'name', sorted(set(re.findall(r'`((?:options|scripts|docs|basicsr_distill)/[\w./-]+\.\w+)`', README)))
)
def test_files_named_exist(name: str) -> None:
    assert (REPOSITORY / name).is_file()


def test_the_tree_is_annotated_truly() -> None:
    tree = README.split('## The tree')[1].split('```')[1]
    for line in tree.splitlines():
        if line.startswith('  '):
            for name in re.findall(r'(\w+\.py|\w+/)', line.split('   ')[0] if '/' in line else line):
                assert (REPOSITORY / 'basicsr_distill' / name).exists(), name
    assert Path(REPOSITORY / 'options').is_dir()
