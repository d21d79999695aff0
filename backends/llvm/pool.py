"""The thread pool as LLVM text over pthreads: `irc_pool_create`, `irc_pool_destroy`,
`irc_parallel_for`.

How a job runs. The indices 0..n-1 are dealt to the threads in contiguous ranges, so that the same
thread sees the same part of the data every time. Each range has a claim word, (generation << 32 |
indices left), taken by compare and swap: a claim can only succeed while its job is unfinished, even
for a thread that was late in reading the job; a thread that has emptied its own range helps with
the others'. The caller is thread 0. It returns when every index is done, not when every thread has
come by: a thread that sleeps or was preempted before it claimed anything delays nobody, and finds a
later generation in the claim words when it wakes. The status is that of the lowest failing index,
so it does not depend on who ran what; every index runs in any case.

How a thread waits.  It spins on the generation word, then announces itself in `sleepers`, looks at
the generation once more and sleeps on it by futex.  The caller publishes the generation and then
reads `sleepers`, both sequentially consistent, so one of the two sees the other: no wake-up is
lost, and no system call is made while all spin.

When it runs serially instead: no pool, one thread, n <= 1, or the pool is busy - which covers calls
from inside a job and from a second thread of the program.  After a fork the mutable state, mapped
MADV_WIPEONFORK, reads as zero in the child, which is the state of a pool whose threads have not
been started; they start at the first job.  Where the kernel has no such mapping, a child runs
serially (the process id is compared).

There is no writable global; the state lives in two mappings per pool.
"""

from __future__ import annotations

from string import Template

from ...ir.errors import UnsupportedError

MAX_THREADS = 256
"""Threads of one pool, its caller included."""

# Mutable state: byte offsets, each group on cache lines of its own (128: two lines are prefetched
# together).
_LAYOUT = {
    "GEN": 0,  # i32, the generation; the futex word
    "SLEEPERS": 128,  # i32
    "FN": 256,  # ptr; then the job, written by the submitter only
    "ARG": 264,  # ptr
    "QUOT": 272,  # i64, n / threads
    "REM": 280,  # i64, n % threads
    "LIVE": 288,  # i64, min(n, threads): ranges that are not empty
    "DONE": 384,  # i64, indices done by threads other than the caller
    "STATUS": 512,  # i64, min over failures of (index << 32 | status), else -1
    "BUSY": 640,  # i32, the try-lock
    "STARTED": 644,  # i32
    "STOP": 648,  # i32
    "SIGNALS": 656,  # two sigset_t of 128 bytes
    # Per thread 128 bytes: i64 claim word, ptr state, i64 index, i64 threads, i64 pthread_t.
    "RECORDS": 1024,
}
_RECORD = 128

_ARCH = {
    # futex system call, spins before sleep (about 0.4 ms), the polite instruction and its
    # declaration
    "x86_64": (
        202,
        20_000,
        "call void @llvm.x86.sse2.pause()",
        "declare void @llvm.x86.sse2.pause()",
    ),
    "aarch64": (
        98,
        200_000,
        "call void @llvm.aarch64.hint(i32 1)",
        "declare void @llvm.aarch64.hint(i32)",
    ),
}

_CREATE = """
declare ptr @calloc(i64, i64)
declare void @free(ptr)
declare ptr @mmap(ptr, i64, i32, i32, i32, i64)
declare i32 @munmap(ptr, i64)
declare i32 @madvise(ptr, i64, i32)
declare i32 @getpid()
declare i32 @sched_yield()
declare i64 @syscall(i64, ...)
declare i32 @sigfillset(ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
declare i64 @llvm.umin.i64(i64, i64)
$declare_pause

; state, its bytes, threads, process id (0: the state is wiped on fork)
%Pool = type { ptr, i64, i64, i32 }

define ptr @irc_pool_create(i32 %wanted) nounwind {
entry:
  %many = icmp sgt i32 %wanted, $MAX
  %most = select i1 %many, i32 $MAX, i32 %wanted
  %few = icmp slt i32 %most, 1
  %count = select i1 %few, i32 1, i32 %most
  %threads = sext i32 %count to i64
  %records = mul i64 %threads, $RECORD
  %bytes0 = add i64 %records, $ROUND
  %bytes = and i64 %bytes0, -65536
  %pool = call ptr @calloc(i64 1, i64 64)
  %nopool = icmp eq ptr %pool, null
  br i1 %nopool, label %fail, label %map
map:
  ; PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS
  %s = call ptr @mmap(ptr null, i64 %bytes, i32 3, i32 34, i32 -1, i64 0)
  %bad = icmp eq ptr %s, inttoptr (i64 -1 to ptr)
  br i1 %bad, label %release, label %fill
fill:
  %wipe = call i32 @madvise(ptr %s, i64 %bytes, i32 18)  ; MADV_WIPEONFORK
  %wiped = icmp eq i32 %wipe, 0
  %self = call i32 @getpid()
  %pid = select i1 %wiped, i32 0, i32 %self
  store ptr %s, ptr %pool
  %bp = getelementptr %Pool, ptr %pool, i32 0, i32 1
  store i64 %bytes, ptr %bp
  %tp = getelementptr %Pool, ptr %pool, i32 0, i32 2
  store i64 %threads, ptr %tp
  %pp = getelementptr %Pool, ptr %pool, i32 0, i32 3
  store i32 %pid, ptr %pp
  ret ptr %pool
release:
  call void @free(ptr %pool)
  br label %fail
fail:
  ret ptr null
}

; Start the threads of a pool whose try-lock is held.  Signals stay with the program's own threads.
; A thread that cannot be had is not missed: the caller does its share.
define internal void @start(ptr %s, i64 %threads) nounwind noinline {
entry:
  %started = getelementptr i8, ptr %s, i64 $STARTED
  store i32 1, ptr %started
  %all = getelementptr i8, ptr %s, i64 $SIGNALS
  %old = getelementptr i8, ptr %all, i64 128
  %f = call i32 @sigfillset(ptr %all)
  %m = call i32 @pthread_sigmask(i32 2, ptr %all, ptr %old)
  br label %next
next:
  %t = phi i64 [ 1, %entry ], [ %t1, %next ]
  %o = mul i64 %t, $RECORD
  %o1 = add i64 %o, $RECORDS
  %rec = getelementptr i8, ptr %s, i64 %o1
  %sp = getelementptr i8, ptr %rec, i64 8
  store ptr %s, ptr %sp
  %ip = getelementptr i8, ptr %rec, i64 16
  store i64 %t, ptr %ip
  %np = getelementptr i8, ptr %rec, i64 24
  store i64 %threads, ptr %np
  %id = getelementptr i8, ptr %rec, i64 32
  %r = call i32 @pthread_create(ptr %id, ptr null, ptr @worker, ptr %rec)
  %t1 = add i64 %t, 1
  %failed = icmp ne i32 %r, 0
  %over = icmp uge i64 %t1, %threads
  %stop = or i1 %failed, %over
  br i1 %stop, label %done, label %next
done:
  %b = call i32 @pthread_sigmask(i32 2, ptr %old, ptr null)
  ret void
}
"""

_WORK = """
; Run indices of generation %g, own range first; returns how many.
define internal i64 @work(ptr %s, i32 %g, i64 %self, i64 %threads) nounwind {
entry:
  %fnp = getelementptr i8, ptr %s, i64 $FN
  %fn = load atomic ptr, ptr %fnp monotonic, align 8
  %argp = getelementptr i8, ptr %s, i64 $ARG
  %arg = load atomic ptr, ptr %argp monotonic, align 8
  %qp = getelementptr i8, ptr %s, i64 $QUOT
  %q = load atomic i64, ptr %qp monotonic, align 8
  %rp = getelementptr i8, ptr %s, i64 $REM
  %r = load atomic i64, ptr %rp monotonic, align 8
  %lp = getelementptr i8, ptr %s, i64 $LIVE
  %live = load atomic i64, ptr %lp monotonic, align 8
  %g64 = zext i32 %g to i64
  %inside = icmp ult i64 %self, %live
  %first = select i1 %inside, i64 %self, i64 0
  br label %range
range:
  %k = phi i64 [ 0, %entry ], [ %k1, %leave ]
  %count = phi i64 [ 0, %entry ], [ %cnt, %leave ]
  %v0 = add i64 %first, %k
  %wrap = icmp uge i64 %v0, %live
  %v1 = sub i64 %v0, %live
  %v = select i1 %wrap, i64 %v1, i64 %v0
  %vo = mul i64 %v, $RECORD
  %vo1 = add i64 %vo, $RECORDS
  %claim = getelementptr i8, ptr %s, i64 %vo1
  %vq = mul i64 %v, %q
  %extra = call i64 @llvm.umin.i64(i64 %v, i64 %r)
  %begin = add i64 %vq, %extra
  %longer = icmp ult i64 %v, %r
  %one = zext i1 %longer to i64
  %len = add i64 %q, %one
  br label %look
look:
  %cnt = phi i64 [ %count, %range ], [ %cnt, %try ], [ %cnt1, %run ], [ %cnt1, %failed ]
  %c = load atomic i64, ptr %claim monotonic, align 8
  %tag = lshr i64 %c, 32
  %left = and i64 %c, 4294967295
  %mine = icmp eq i64 %tag, %g64
  %some = icmp ne i64 %left, 0
  %go = and i1 %mine, %some
  br i1 %go, label %try, label %leave
try:
  %c1 = sub i64 %c, 1
  ; Success proves that the job is not over, so that the fields read above are its own.
  ; Release: those loads come before; acquire: the job's data after.
  %x = cmpxchg ptr %claim, i64 %c, i64 %c1 acq_rel monotonic, align 8
  %won = extractvalue { i64, i1 } %x, 1
  br i1 %won, label %run, label %look
run:
  %cnt1 = add i64 %cnt, 1
  %i = sub i64 %len, %left
  %index = add i64 %begin, %i
  %status = call i32 %fn(ptr %arg, i64 %index)
  %ok = icmp eq i32 %status, 0
  br i1 %ok, label %look, label %failed
failed:
  %st = zext i32 %status to i64
  %hi = shl i64 %index, 32
  %key = or i64 %hi, %st
  %stp = getelementptr i8, ptr %s, i64 $STATUS
  %was = atomicrmw umin ptr %stp, i64 %key monotonic, align 8
  br label %look
leave:
  %k1 = add i64 %k, 1
  %end = icmp uge i64 %k1, %live
  br i1 %end, label %out, label %range
out:
  ret i64 %cnt
}

define internal ptr @worker(ptr %rec) nounwind {
entry:
  %sp = getelementptr i8, ptr %rec, i64 8
  %s = load ptr, ptr %sp
  %ip = getelementptr i8, ptr %rec, i64 16
  %self = load i64, ptr %ip
  %np = getelementptr i8, ptr %rec, i64 24
  %threads = load i64, ptr %np
  %gen = getelementptr i8, ptr %s, i64 $GEN
  %sleepers = getelementptr i8, ptr %s, i64 $SLEEPERS
  %stopp = getelementptr i8, ptr %s, i64 $STOP
  %done = getelementptr i8, ptr %s, i64 $DONE
  br label %spin
spin:
  %seen = phi i32 [ 0, %entry ], [ %seen, %polite ], [ %seen, %sleep ], [ %g, %ran ], [ %g, %add ]
  %n = phi i32 [ 0, %entry ], [ %n1, %polite ], [ 0, %sleep ], [ 0, %ran ], [ 0, %add ]
  %g0 = load atomic i32, ptr %gen acquire, align 4
  %new = icmp ne i32 %g0, %seen
  br i1 %new, label %job, label %wait
wait:
  %n1 = add i32 %n, 1
  %long = icmp ugt i32 %n1, $SPINS
  br i1 %long, label %drowsy, label %polite
polite:
  $pause
  br label %spin
drowsy:
  %count = atomicrmw add ptr %sleepers, i32 1 seq_cst, align 4
  %g1 = load atomic i32, ptr %gen seq_cst, align 4
  %late = icmp ne i32 %g1, %seen
  br i1 %late, label %job, label %sleep
sleep:
  %w = call i64 (i64, ...) @syscall(i64 $FUTEX, ptr %gen, i64 128, i32 %seen, ptr null)
  br label %spin
job:
  %g = phi i32 [ %g0, %spin ], [ %g1, %drowsy ]
  %stop = load atomic i32, ptr %stopp monotonic, align 4
  %ends = icmp ne i32 %stop, 0
  br i1 %ends, label %quit, label %ran
ran:
  %did = call i64 @work(ptr %s, i32 %g, i64 %self, i64 %threads)
  %idle = icmp eq i64 %did, 0
  br i1 %idle, label %spin, label %add
add:
  %d = atomicrmw add ptr %done, i64 %did release, align 8
  br label %spin
quit:
  ret ptr null
}

; Publish a generation and wake whoever sleeps.
define internal void @publish(ptr %s, i32 %g) nounwind {
entry:
  %gen = getelementptr i8, ptr %s, i64 $GEN
  %o = atomicrmw xchg ptr %gen, i32 %g seq_cst, align 4
  %sleepers = getelementptr i8, ptr %s, i64 $SLEEPERS
  %n = load atomic i32, ptr %sleepers seq_cst, align 4
  %none = icmp eq i32 %n, 0
  br i1 %none, label %out, label %wake
wake:
  %was = atomicrmw xchg ptr %sleepers, i32 0 seq_cst, align 4
  %w = call i64 (i64, ...) @syscall(i64 $FUTEX, ptr %gen, i64 129, i32 2147483647)
  br label %out
out:
  ret void
}
"""

_FOR = """
define internal i32 @serial(ptr %fn, ptr %arg, i64 %n) nounwind {
entry:
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %next, label %out
next:
  %i = phi i64 [ 0, %entry ], [ %i1, %next ]
  %first = phi i32 [ 0, %entry ], [ %kept, %next ]
  %status = call i32 %fn(ptr %arg, i64 %i)
  %ok = icmp eq i32 %first, 0
  %kept = select i1 %ok, i32 %status, i32 %first
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %n
  br i1 %more, label %next, label %out
out:
  %result = phi i32 [ 0, %entry ], [ %kept, %next ]
  ret i32 %result
}

define i32 @irc_parallel_for(ptr %pool, ptr %fn, ptr %arg, i64 %n) nounwind {
entry:
  %nopool = icmp eq ptr %pool, null
  %n2 = sub i64 %n, 2
  %odd = icmp ugt i64 %n2, 2147483645
  %plain = or i1 %nopool, %odd
  br i1 %plain, label %alone, label %size
size:
  %tp = getelementptr %Pool, ptr %pool, i32 0, i32 2
  %threads = load i64, ptr %tp
  %pp = getelementptr %Pool, ptr %pool, i32 0, i32 3
  %pid = load i32, ptr %pp
  %s = load ptr, ptr %pool
  %single = icmp ult i64 %threads, 2
  br i1 %single, label %alone, label %process
process:
  %wiped = icmp eq i32 %pid, 0
  br i1 %wiped, label %lock, label %compare
compare:
  %me = call i32 @getpid()
  %same = icmp eq i32 %me, %pid
  br i1 %same, label %lock, label %alone
lock:
  %busy = getelementptr i8, ptr %s, i64 $BUSY
  %x = cmpxchg ptr %busy, i32 0, i32 1 acquire monotonic, align 4
  %won = extractvalue { i32, i1 } %x, 1
  br i1 %won, label %check, label %alone
check:
  %startedp = getelementptr i8, ptr %s, i64 $STARTED
  %started = load i32, ptr %startedp
  %running = icmp ne i32 %started, 0
  br i1 %running, label %submit, label %begin
begin:
  call void @start(ptr %s, i64 %threads)
  br label %submit
submit:
  %status = call i32 @job(ptr %s, ptr %fn, ptr %arg, i64 %n, i64 %threads)
  store atomic i32 0, ptr %busy release, align 4
  ret i32 %status
alone:
  %r = call i32 @serial(ptr %fn, ptr %arg, i64 %n)
  ret i32 %r
}

; One job on a pool whose try-lock is held.
define internal i32 @job(ptr %s, ptr %fn, ptr %arg, i64 %n, i64 %threads) nounwind {
entry:
  %fnp = getelementptr i8, ptr %s, i64 $FN
  store atomic ptr %fn, ptr %fnp monotonic, align 8
  %argp = getelementptr i8, ptr %s, i64 $ARG
  store atomic ptr %arg, ptr %argp monotonic, align 8
  %q = udiv i64 %n, %threads
  %qp = getelementptr i8, ptr %s, i64 $QUOT
  store atomic i64 %q, ptr %qp monotonic, align 8
  %r = urem i64 %n, %threads
  %rp = getelementptr i8, ptr %s, i64 $REM
  store atomic i64 %r, ptr %rp monotonic, align 8
  %live = call i64 @llvm.umin.i64(i64 %n, i64 %threads)
  %lp = getelementptr i8, ptr %s, i64 $LIVE
  store atomic i64 %live, ptr %lp monotonic, align 8
  %donep = getelementptr i8, ptr %s, i64 $DONE
  store atomic i64 0, ptr %donep monotonic, align 8
  %stp = getelementptr i8, ptr %s, i64 $STATUS
  store atomic i64 -1, ptr %stp monotonic, align 8
  %gen = getelementptr i8, ptr %s, i64 $GEN
  %g0 = load atomic i32, ptr %gen monotonic, align 4
  %g = add i32 %g0, 1
  %g64 = zext i32 %g to i64
  %word = shl i64 %g64, 32
  br label %deal
deal:
  %t = phi i64 [ 0, %entry ], [ %t1, %deal ]
  %o = mul i64 %t, $RECORD
  %o1 = add i64 %o, $RECORDS
  %claim = getelementptr i8, ptr %s, i64 %o1
  %longer = icmp ult i64 %t, %r
  %one = zext i1 %longer to i64
  %len = add i64 %q, %one
  %full = or i64 %word, %len
  store atomic i64 %full, ptr %claim monotonic, align 8
  %t1 = add i64 %t, 1
  %more = icmp ult i64 %t1, %live
  br i1 %more, label %deal, label %go
go:
  call void @publish(ptr %s, i32 %g)
  %own = call i64 @work(ptr %s, i32 %g, i64 0, i64 %threads)
  %rest = sub i64 %n, %own
  br label %join
join:
  %spins = phi i32 [ 0, %go ], [ %spins1, %polite ], [ 0, %yield ]
  %done = load atomic i64, ptr %donep acquire, align 8
  %all = icmp eq i64 %done, %rest
  br i1 %all, label %out, label %wait
wait:
  %spins1 = add i32 %spins, 1
  %long = icmp ugt i32 %spins1, $SPINS
  br i1 %long, label %yield, label %polite
polite:
  $pause
  br label %join
yield:
  %y = call i32 @sched_yield()
  br label %join
out:
  %worst = load atomic i64, ptr %stp monotonic, align 8
  %fine = icmp eq i64 %worst, -1
  %low = trunc i64 %worst to i32
  %status = select i1 %fine, i32 0, i32 %low
  ret i32 %status
}
"""

_DESTROY = """
; Waits for a job in flight, ends the threads and frees the pool.
define void @irc_pool_destroy(ptr %pool) nounwind {
entry:
  %nopool = icmp eq ptr %pool, null
  br i1 %nopool, label %out, label %some
some:
  %s = load ptr, ptr %pool
  %bp = getelementptr %Pool, ptr %pool, i32 0, i32 1
  %bytes = load i64, ptr %bp
  %tp = getelementptr %Pool, ptr %pool, i32 0, i32 2
  %threads = load i64, ptr %tp
  %pp = getelementptr %Pool, ptr %pool, i32 0, i32 3
  %pid = load i32, ptr %pp
  %wiped = icmp eq i32 %pid, 0
  %me = call i32 @getpid()
  %same = icmp eq i32 %me, %pid
  %ours = or i1 %wiped, %same
  %busy = getelementptr i8, ptr %s, i64 $BUSY
  br i1 %ours, label %lock, label %unmap
lock:
  %x = cmpxchg ptr %busy, i32 0, i32 1 acquire monotonic, align 4
  %won = extractvalue { i32, i1 } %x, 1
  br i1 %won, label %check, label %yield
yield:
  %y = call i32 @sched_yield()
  br label %lock
check:
  %startedp = getelementptr i8, ptr %s, i64 $STARTED
  %started = load i32, ptr %startedp
  %running = icmp ne i32 %started, 0
  br i1 %running, label %stop, label %unmap
stop:
  %stopp = getelementptr i8, ptr %s, i64 $STOP
  store atomic i32 1, ptr %stopp monotonic, align 4
  %gen = getelementptr i8, ptr %s, i64 $GEN
  %g0 = load atomic i32, ptr %gen monotonic, align 4
  %g = add i32 %g0, 1
  call void @publish(ptr %s, i32 %g)
  br label %join
join:
  %t = phi i64 [ 1, %stop ], [ %t1, %next ]
  %o = mul i64 %t, $RECORD
  %o1 = add i64 %o, $RECORDS
  %o2 = add i64 %o1, 32
  %idp = getelementptr i8, ptr %s, i64 %o2
  %id = load i64, ptr %idp
  %never = icmp eq i64 %id, 0
  br i1 %never, label %next, label %reap
reap:
  %j = call i32 @pthread_join(i64 %id, ptr null)
  br label %next
next:
  %t1 = add i64 %t, 1
  %more = icmp ult i64 %t1, %threads
  br i1 %more, label %join, label %unmap
unmap:
  %u = call i32 @munmap(ptr %s, i64 %bytes)
  call void @free(ptr %pool)
  br label %out
out:
  ret void
}
"""


def pool_text(arch: str) -> str:
    """The module "irc_pool" for Linux on `arch`, "x86_64" or "aarch64".

    C ABI:
      void *irc_pool_create(int threads);   // null when out of memory
      void irc_pool_destroy(void *pool);
      int irc_parallel_for(void *pool, int (*fn)(void *arg, long index), void *arg, long n);
    """
    if arch not in _ARCH:
        raise UnsupportedError(
            "E0493", f"there is no thread pool for {arch}", hint="compile for one thread"
        )
    futex, spins, pause, declare = _ARCH[arch]
    words = {name: str(offset) for name, offset in _LAYOUT.items()}
    words |= {"FUTEX": str(futex), "SPINS": str(spins), "pause": pause, "declare_pause": declare}
    words |= {"MAX": str(MAX_THREADS), "RECORD": str(_RECORD)}
    words["ROUND"] = str(_LAYOUT["RECORDS"] + 65535)
    return Template(_CREATE + _WORK + _FOR + _DESTROY).substitute(words)
