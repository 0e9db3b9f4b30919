# Call stacks of many kinds through the interpreter, in random order. Command: `go N`: N rounds. Needs no more than Debian's perl-base.
use strict;
use warnings;
use List::Util qw(first reduce sum any);

package Magic {
    use overload
        '""' => sub { $_[0]->once; 'magic' },
        '<=>' => sub { $_[0]->once; 0 },
        '+' => sub { $_[0]->once; 1 },
        '==' => sub { $_[0]->once; 1 },
        'bool' => sub { $_[0]->once; 1 },
        '@{}' => sub { $_[0]->once; [1, 2] },
        '&{}' => sub { my $self = shift; sub { $self->once } };
    my %depths;
    my $count = 0;
    sub new { my ($class, $depth) = @_; my $id = $count++; my $self = bless \$id, $class; $depths{$id} = $depth; $self }
    sub once { my $self = shift; my $depth = delete $depths{$$self}; main::descend($depth) if defined $depth }
    sub DESTROY { my $self = shift; $self->once }
    sub AUTOLOAD { my $self = shift; $self->once if ref $self }
    package Tied {
        sub TIESCALAR { my ($class, $depth) = @_; bless {depth => $depth}, $class }
        sub TIEARRAY { goto &TIESCALAR }
        sub TIEHASH { goto &TIESCALAR }
        sub TIEHANDLE { goto &TIESCALAR }
        sub once { my $depth = delete $_[0]{depth}; main::descend($depth) if defined $depth }
        sub FETCH { $_[0]->once; 1 }
        sub STORE { $_[0]->once }
        sub FETCHSIZE { 1 }
        sub EXISTS { $_[0]->once; 1 }
        sub FIRSTKEY { $_[0]->once; undef }
        sub PRINT { $_[0]->once }
        sub READLINE { $_[0]->once; undef }
        sub DESTROY { }
    }
}

srand 1;
sub pick { $_[rand @_] }

my @work = (
    sub { my %h = map { $_ => [1, 2, "x" x 50] } 'a' .. 'j'; join ',', sort keys %h },
    sub { my $s = 'abc-12 def-34 ' x 3; $s =~ s/(\w+)-(\d+)/$2 $1/g; $s },
    sub { my $n = int rand 6e4; 'abc' =~ /(?:a|b)*c{0,$n}(?<name>[x-z]*)/ },
    sub { sprintf '%10s %-5d %.3f', 'text', 42, 3.14159 },
    sub { my %deep = (a => [1 .. 5], b => {c => [{}, []]}); my @copies = map { {%deep} } 1 .. 3; scalar @copies },
    sub { my $s = "\x{263a}" x 20; utf8::encode($s); utf8::decode($s); uc $s },
    sub { my @a = sort { $b <=> $a } map { rand } 1 .. 20; scalar @a },
    sub { eval 'my $x = sub { [1, 2, { a => $_[0] }] }; $x->(3)' or die },
    sub { my ($a, $b) = unpack 'A3 N', pack 'A3 N', 'abc', 7; "$a$b" },
    sub { join '', reverse split //, 'some text that is split' },
    sub { open my $in, '<', \"line 1\nline 2\n" or die; my @lines = <$in>; "@lines" },
    sub { local $_ = 'aabbcc'; tr/a-c/A-C/; lc . ucfirst },
);

my @ways;
sub descend {
    my $depth = shift;
    return pick(@work)->() if $depth <= 0;
    no warnings;
    return pick(@ways)->($depth - 1);
}

@ways = (
    sub { descend($_[0]) },
    sub { my $d = shift; my @a = sort { descend($d), $d = 0 if $d; $a <=> $b } 2, 1; @a },
    sub { my $m = Magic->new(shift); "$m" },
    sub { my $m = Magic->new(shift); my @a = sort { $a <=> $b } $m, 1; @a },
    sub { my $m = Magic->new(shift); $m + 1 },
    sub { my $m = Magic->new(shift); $m ? 1 : 0 },
    sub { my $m = Magic->new(shift); scalar @$m },
    sub { my $m = Magic->new(shift); $m->unknown },
    sub { my $m = Magic->new(shift); undef $m },
    sub { my $m = Magic->new(shift); sprintf '%s', $m },
    sub { my $m = Magic->new(shift); my %h = ($m => 1); keys %h },
    sub { my $m = Magic->new(shift); 'x' =~ $m },
    sub { my $m = Magic->new(shift); join '-', 1, $m },
    sub { tie my $t, 'Tied', shift; my $x = $t },
    sub { tie my $t, 'Tied', shift; $t = 1 },
    sub { tie my @t, 'Tied', shift; my @x = @t },
    sub { tie my %t, 'Tied', shift; my $x = $t{a} },
    sub { tie my %t, 'Tied', shift; my @x = keys %t },
    sub { tie *T, 'Tied', shift; print T 1; untie *T },
    sub { tie *T, 'Tied', shift; my $x = <T>; untie *T },
    sub { my $d = shift; my $s = 'a'; $s =~ s/a/descend($d); 1/e; $s },
    sub { my $d = shift; my $s = 'a'; $s =~ s/a/'descend($d); 1'/ee; $s },
    sub { my $d = shift; first { descend($d); 1 } 1 },
    sub { my $d = shift; reduce { descend($d) } 1, 2 },
    sub { my $d = shift; any { descend($d); 1 } 1 },
    sub { my $d = shift; eval { descend($d); die 'x' } },
    sub { my $d = shift; eval 'descend($d)' },
    sub { my $d = shift; local $SIG{__WARN__} = sub { descend($d) }; warn 'x' },
    sub { my $d = shift; local $SIG{__DIE__} = sub { descend($d) }; eval { die 'x' } },
    sub { my $d = shift; local $SIG{USR1} = sub { descend($d) }; kill USR1 => $$; 1 },
    sub { my $d = shift; map { descend($d) } 1 },
    sub { my $d = shift; my ($x) = grep { descend($d) } 1; $x },
    sub { my $d = shift; 'a' =~ /a(?{ descend($d) })/ },
);

$| = 1;
$SIG{__WARN__} = sub { };
print "READY\n";
while (my $line = <STDIN>) {
    last if $line eq "quit\n";
    my (undef, $rounds) = split ' ', $line;
    descend(int rand 7) for 1 .. $rounds;
    print "DONE\n";
}
