import pytest

from wavernn.kernels.gpu.call import Configuration
from wavernn.kernels.gpu.compiled import drift, faults
from wavernn.kernels.gpu.machine_code import KINDS, Code, Poll, count, parse, sample_loop

# a loop whose middle lies behind the kernel's end, as does a copy of it for warps whose threads
# have parted; a loop that waits within it, and a loop before it
LISTING = """
        .global         kernel
kernel:
.text.kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   LDG.E.128 R20, desc[UR6][R24.64] ;
        /*0020*/               @P0 BRA `(.L_x_0) ;
.L_x_1:
        /*0030*/                   FFMA R35, R12, R20.reuse, R35 ;
        /*0040*/                   BSSY B0, `(.L_x_3) ;
        /*0050*/               @P1 BRA `(.L_x_4) ;
        /*0060*/                   BRA P2, `(.L_x_5) ;
.L_x_2:
        /*0070*/                   LDG.E.128.STRONG.GPU R20, desc[UR6][R20.64] ;
        /*0080*/              @!P1 BRA `(.L_x_2) ;
.L_x_4:
        /*0090*/                   BSYNC B0 ;
.L_x_3:
        /*00a0*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*00a8*/                   BRA.DIV ~URZ, `(.L_x_9) ;
        /*00b0*/              @!P3 CALL.REL.NOINC `(.L_x_6) ;
        /*00c0*/                   BRA `(.L_x_1) ;
.L_x_6:
        /*00d0*/                   STG.E desc[UR6][R2.64], R27 ;
        /*00e0*/                   EXIT ;
.L_x_5:
        /*00f0*/                   WARPSYNC.COLLECTIVE R15, `(.L_x_7) ;
        /*0100*/                   SHFL.BFLY PT, R33, R34, 0x8, 0x1f ;
.L_x_7:
        /*0110*/                   STL [R1], R4 ;
        /*0120*/                   BRA `(.L_x_2) ;
.L_x_9:
        /*0128*/                   FFMA R35, R12, R20.reuse, R35 ;
        /*012c*/                   BRA `(.L_x_3) ;
.L_x_8:
        /*0130*/                   BRA `(.L_x_8);
        /*0140*/                   NOP;
"""


def code(**fields):
    counts = dict.fromkeys(KINDS, 0) | fields.pop("counts", {})
    return Code(
        **({"registers": 64, "stack": 0, "shared": 0, "instructions": 9} | fields), counts=counts
    )


def configuration(**fields):
    return Configuration("toy", None, {}, {}, **fields)


def test_the_loop_is_what_reaches_itself():
    listing = parse(LISTING)
    loop, inner = sample_loop(listing)
    addresses = {listing.instructions[i].address for i in loop}
    assert addresses == {*range(0x30, 0xD0, 0x10), 0xA8, *range(0xF0, 0x128, 0x10)}
    assert [sorted(listing.instructions[i].address for i in nodes) for nodes in inner] == [
        [0x70, 0x80]
    ]


def test_what_the_loop_holds_is_counted():
    listing = parse(LISTING)
    found = {"FFMA": 1, "LDG.STRONG": 1, "BAR": 1, "SHFL": 1, "STL": 1}
    assert dict(count(listing, sample_loop(listing)[0])) == found


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("LDG.E.U16", ["LDG"]),
        ("LDG.E.STRONG.SYS", ["LDG.STRONG"]),
        ("LDGSTS.E.BYPASS.128", ["LDGSTS"]),
        ("LD.E.STRONG.GPU", ["LD"]),
        ("LDL.LU", ["LDL"]),
        ("LDSM.16.M88.4", ["LDSM"]),
        ("LDS.128", ["LDS"]),
        ("STSM.16.M88", ["STS"]),
        ("MEMBAR.ALL.GPU", ["MEMBAR"]),
        ("MEMBAR.SC.CTA", []),
        ("REDG.E.ADD.STRONG.GPU", ["RED"]),
        ("REDUX.SUM", ["REDUX"]),
        ("ATOMG.E.ADD.STRONG.GPU", ["ATOM"]),
        ("ATOMS.ADD", []),
        ("HMMA.16816.F32", ["HMMA"]),
        ("HGMMA.64x16x16.F32", ["HGMMA"]),
        ("CALL.REL.NOINC `($__internal_0_$__cuda_sm20_div_rn_f64_full)", ["CALL"]),
        ("CALL.REL.NOINC `(.L_x_0)", []),
    ],
)
def test_instructions_are_of_a_kind(name, kinds):
    listing = parse(f"        /*0000*/              @!P1 {name} R1, R2 ;")
    assert sorted(count(listing, {0})) == kinds


def test_a_kernel_without_a_loop_is_refused():
    with pytest.raises(ValueError, match="no loop"):
        sample_loop(parse("        /*0000*/                   EXIT ;"))


def test_a_good_kernel_has_no_faults():
    expected = {"BAR": 2, "LDG": 0, "polls": 1}
    good = code(registers=255, shared=232_448, counts={"BAR": 2}, polls=(Poll(3, 1, 0, 0),))
    assert faults(configuration(cooperative=True, expected=expected), good, 90) == []


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"stack": 8}, "8 bytes of a thread spill"),
        ({"counts": {"LDL": 1}}, "1 LDL in the loop"),
        ({"counts": {"STL": 2}}, "2 STL in the loop"),
        ({"counts": {"CALL": 1}}, "1 CALL in the loop: such as a division in float64"),
        ({"counts": {"LDGSTS": 3}}, "3 LDGSTS in the loop: loads run ahead"),
        ({"registers": 257}, "256 threads of 257 registers exceed 65536"),
        ({"shared": 232_449}, "232449 bytes of shared memory exceed 232448"),
        ({"counts": {"BAR": 6}}, "6 BAR in the loop, expected 5"),
        ({"polls": (Poll(9, 3, 0, 0),)}, "a loop that waits has 3 loads"),
        ({"polls": (Poll(9, 1, 2, 0),)}, "a loop that waits may read 2 stale words"),
        ({"polls": (Poll(9, 1, 0, 1),)}, "a loop that waits has 1 barriers"),
    ],
)
def test_each_fault_is_named(fields, fault):
    fields = {"counts": {"BAR": 5}} | fields
    if "BAR" not in fields["counts"]:
        fields["counts"]["BAR"] = 5
    wanted = configuration(cooperative=True, expected={"BAR": 5})
    (found,) = faults(wanted, code(**fields), 90)
    assert fault in found


def test_who_waits_is_launched_cooperatively():
    (found,) = faults(configuration(), code(polls=(Poll(3, 1, 0, 0),)), 90)
    assert "launch it cooperatively" in found


def test_an_unknown_count_is_refused():
    (found,) = faults(configuration(expected={"BARS": 0}), code(), 90)
    assert found.startswith("BARS is nothing that is counted: BAR, MEMBAR")


@pytest.mark.parametrize(("instructions", "moved"), [(90, 0), (110, 0), (89, 1), (111, 1)])
def test_the_length_may_move_by_a_tenth(instructions, moved):
    assert bool(drift({"instructions": instructions}, {"instructions": 100})) == moved
