"""Call stacks of many kinds through the interpreter and its modules written in C, in random order. Command: `go N`: N rounds."""
import ast, bisect, collections, copy, csv, decimal, functools, io, itertools, json, operator, pickle, random, re, sqlite3, string, struct
import sys, threading, xml.etree.ElementTree as tree, zlib

sys.setrecursionlimit(10000)
database = sqlite3.connect(":memory:", check_same_thread=False)
database.execute("create table t(a integer primary key, b text)")
database.executemany("insert into t values (?, ?)", [(i, "text %d" % i * (i % 5)) for i in range(50)])
chance = random.Random(1)


def work():
    """What allocates at the end of a chain."""
    return chance.choice(WORK)()


WORK = [
    lambda: json.loads(json.dumps({"a": [1, 2.5, None, {"b": "x" * 50}], "c": [[[]]] * 3}, indent=chance.choice([None, 1]))),
    lambda: re.sub(r"(\w+)-(\d+)", r"\2 \1", "abc-12 def-34 " * 3),
    lambda: re.compile(r"(a|b)*c{%d}(?P<name>[x-z]+)" % chance.randrange(1000)),
    lambda: database.execute("select b, count(*) from t where a > ? group by b order by b desc", (chance.randrange(40),)).fetchall(),
    lambda: pickle.loads(pickle.dumps({"k": [set("abc"), 1 << 100, ("x",) * 5]})),
    lambda: ast.parse("def f(x):\n    return [y ** 2 for y in x if (y + 1) * 2 > 3]\n"),
    lambda: eval(compile("sum(i * i for i in range(10)) + len(str(2 ** 100))", "text", "eval")),
    lambda: sorted("the quick brown fox".split(), key=lambda word: (len(word), word[::-1])),
    lambda: "{:>10} {!r:<5} {:,}".format("text", [1, 2], 10 ** 9),
    lambda: decimal.Decimal("1.1") ** 30 / decimal.Decimal(7),
    lambda: tree.tostring(tree.fromstring("<a><b c='d'>text</b><e/></a>")),
    lambda: zlib.decompress(zlib.compress(string.ascii_letters.encode() * 4)),
    lambda: list(csv.reader(io.StringIO('a,"b c",d\n1,2,3\n'))),
    lambda: copy.deepcopy({"a": [1, {"b": (2, 3)}]}),
    lambda: collections.Counter("abracadabra").most_common(2),
    lambda: struct.unpack("<IHb", struct.pack("<IHb", 1, 2, 3)),
    lambda: list(itertools.permutations("abc")),
    lambda: int("7" * 60) // 3 ** 20,
]


def descend(depth):
    if depth <= 0:
        return work()
    return chance.choice(WAYS)(depth - 1)


class Magic:
    def __init__(self, depth):
        self.depth = depth

    def once(self):
        depth, self.depth = self.depth, -1
        if depth >= 0:
            descend(depth)

    def __lt__(self, other):
        self.once()
        return False

    def __hash__(self):
        self.once()
        return 1

    def __eq__(self, other):
        self.once()
        return True

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        self.once()
        return name

    def __str__(self):
        self.once()
        return "magic"

    def __iter__(self):
        yield 1
        self.once()
        yield 2

    def __add__(self, other):
        self.once()
        return self

    def __call__(self, *arguments):
        self.once()
        return arguments

    def __getitem__(self, index):
        if index > 1:
            raise IndexError
        self.once()
        return index

    def __len__(self):
        self.once()
        return 2

    def __enter__(self):
        self.once()
        return self

    def __exit__(self, *what):
        self.once()
        return True

    def __reduce__(self):
        self.once()
        return (int, (1,))

    def __del__(self):
        self.once()


def raising(depth):
    try:
        with Magic(depth):
            raise ValueError("x")
    except ValueError:
        pass


def once(depth):
    """A callback that goes deeper when it is first called."""
    left = [depth]

    def callback(*arguments):
        if left:
            descend(left.pop())
        return 0

    return callback


def by_sql(depth):
    connection = sqlite3.connect(":memory:")
    connection.create_function("deeper", 1, once(depth))
    return connection.execute("select deeper(1) union select deeper(2) order by 1").fetchall()


def by_thread(depth):
    if threading.active_count() > 3:
        return descend(depth)
    thread = threading.Thread(target=descend, args=(depth,))
    thread.start()
    thread.join()


WAYS = [
    lambda depth: descend(depth),
    lambda depth: list(map(once(depth), [1, 2])),
    lambda depth: sorted([1, 2], key=once(depth)),
    lambda depth: re.sub("a", lambda match: str(len(str(descend(depth)))), "a"),
    lambda depth: functools.reduce(once(depth), [1, 2]),
    lambda depth: max([1, 2], key=once(depth)),
    lambda depth: json.dumps(Magic(depth), default=lambda magic: str(magic)),
    lambda depth: json.loads('{"a": 1}', object_hook=once(depth)),
    lambda depth: sorted([Magic(depth), Magic(-1)]),
    lambda depth: {Magic(depth): 1},
    lambda depth: Magic(depth) in [Magic(-1)],
    lambda depth: Magic(depth).name,
    lambda depth: "%s" % Magic(depth),
    lambda depth: f"{Magic(depth)}",
    lambda depth: list(Magic(depth)),
    lambda depth: sum([Magic(depth), Magic(-1)], Magic(-1)),
    lambda depth: operator.methodcaller("once")(Magic(depth)),
    lambda depth: bisect.bisect([Magic(depth)], Magic(-1)),
    lambda depth: pickle.dumps(Magic(depth)),
    lambda depth: list(filter(once(depth), [1])),
    lambda depth: functools.partial(descend, depth)(),
    lambda depth: eval("descend(depth)", {"descend": descend, "depth": depth}),
    lambda depth: any(descend(depth) for _ in range(1)),
    lambda depth: dict.fromkeys(Magic(depth)),
    lambda depth: collections.defaultdict(lambda: descend(depth))["a"],
    lambda depth: [descend(depth) for _ in range(1)],
    lambda depth: Magic(depth)(1, 2),
    lambda depth: Magic(depth) and 1,
    lambda depth: next(itertools.starmap(once(depth), [(1, 2)])),
    lambda depth: functools.lru_cache(lambda x: descend(depth))(1),
    lambda depth: io.TextIOWrapper(io.BufferedReader(Raw(depth))).read(),
    raising,
    by_sql,
    by_thread,
]


class Raw(io.RawIOBase):
    def __init__(self, depth):
        self.depth = [depth]

    def readable(self):
        return True

    def readinto(self, buffer):
        if self.depth:
            descend(self.depth.pop())
        return 0


print("READY", flush=True)
for line in sys.stdin:
    if line == "quit\n":
        break
    for _ in range(int(line.split()[1])):
        descend(chance.randrange(6))
    print("DONE", flush=True)
