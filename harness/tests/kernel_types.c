/* A small kernel for the tests of what needs one's types: the names are Linux's where the
 * verifier looks for a name, the contents are made up.
 */
#define rcu __attribute__((btf_type_tag("rcu")))
#define user __attribute__((btf_type_tag("user")))
#define percpu __attribute__((btf_type_tag("percpu")))

typedef unsigned long u64;
typedef int bool_t;

struct dentry;
struct inode { int i_mode; u64 i_ino; };
struct path { void *mnt; struct dentry *dentry; };
struct dentry { struct inode *d_inode; struct dentry *d_parent; };
struct file { struct path f_path; struct inode *f_inode; unsigned f_flags : 4; u64 f_pos; };
struct file__safe_trusted { struct inode *f_inode; };
struct dentry__safe_trusted_or_null { struct inode *d_inode; };
struct cred { unsigned uid; };
struct css_set { int refs; };
struct mm_struct { int users; };
struct task_struct {
	int pid;
	int tgid;
	char comm[16];
	struct task_struct rcu *real_parent;
	struct task_struct *group_leader;
	struct css_set rcu *cgroups;
	struct cred *cred;
	void *stack;
	struct { int a; struct file *file; } inner;
	union { struct mm_struct *mm; u64 word; };
	struct mm_struct user *uaddr;
	struct file percpu *pfile;
	struct { int a, b; } list[3];
	struct mm_struct *active_mm;
};
struct task_struct__safe_rcu {
	struct css_set *cgroups;
	struct task_struct *group_leader;
};
struct bpf_iter_meta { u64 session; struct seq_file *seq; };
struct seq_file { int n; };
struct bpf_map { int id; };
struct cpumask { u64 bits[2]; };
struct bpf_cpumask { struct cpumask cpumask; int usage; };
struct sock_common { int family; };
struct sock { struct sock_common __sk_common; int n; };
struct socket { struct sock *sk; };
struct pt_regs { u64 ip; };
struct __sk_buff { int len; };
struct sk_buff { int len; struct sock *sk; };
struct bpf_ctx_convert {
	struct __sk_buff BPF_PROG_TYPE_SCHED_CLS_prog;
	struct sk_buff BPF_PROG_TYPE_SCHED_CLS_kern;
	u64 BPF_PROG_TYPE_SYSCALL_prog;
	void *BPF_PROG_TYPE_SYSCALL_kern;
};

/* variables */
int bpf_prog_active __attribute__((section(".data..percpu")));
struct task_struct init_task;
u64 jiffies;
struct bpf_ctx_convert bpf_ctx_convert;
struct file__safe_trusted safe0;
struct dentry__safe_trusted_or_null safe1;
struct task_struct__safe_rcu safe2;
struct bpf_map some_map;
struct pt_regs some_regs;
struct cred some_cred;
struct dentry some_dentry;
struct mm_struct some_mm;
struct css_set some_set;
struct seq_file some_seq;

/* tracepoints */
typedef void (*btf_trace_task_newtask)(void *, struct task_struct *, u64);
typedef void (*btf_trace_sched_process_wait)(void *, struct task_struct *);
typedef void (*btf_trace_cachefiles_lookup)(void *, struct file *, struct inode *, struct file *);
btf_trace_task_newtask t0;
btf_trace_sched_process_wait t1;
btf_trace_cachefiles_lookup t2;

/* functions to attach to */
int bpf_fentry_test1(int a) { return a; }
u64 vfs_read(struct file *file, char *buf, u64 count, u64 *pos) { return count; }
void vfs_nothing(struct file *file) {}
void do_exit(u64 code) {}
void migrate_disable(void) {}
int __x64_sys_getpgid(struct pt_regs *regs) { return 0; }
int security_file_open(struct file *file) { return 0; }
int bpf_lsm_file_open(struct file *file) { return 0; }
int bpf_lsm_file_alloc_security(struct file *file) { return 0; }
int bpf_lsm_task_free(struct task_struct *task) { return 0; }
bool_t bpf_lsm_inode_xattr_skipcap(const char *name) { return 0; }
void bpf_lsm_sk_free_security(struct sock *sk) {}
void bpf_lsm_task_to_inode(struct task_struct *task, struct inode *inode) {}
int bpf_lsm_verify_prog(void *log) { return 0; }
int bpf_lsm_socket_create(int family, int type) { return 0; }
int bpf_iter_task(struct bpf_iter_meta *meta, struct task_struct *task) { return 0; }
int bpf_iter_bpf_map_elem(struct bpf_iter_meta *meta, struct bpf_map *map, void *key, void *value)
{ return 0; }

/* functions to call */
struct task_struct *bpf_task_acquire(struct task_struct *p) { return p; }
void bpf_task_release(struct task_struct *p) {}
struct task_struct *bpf_task_from_pid(int pid) { return 0; }
void *bpf_rdonly_cast(const void *obj__ign, unsigned btf_id__k) { return 0; }
void *bpf_cast_to_kern_ctx(void *obj) { return 0; }
void bpf_rcu_read_lock(void) {}
void bpf_rcu_read_unlock(void) {}
struct file *bpf_get_task_exe_file(struct task_struct *task) { return 0; }
void bpf_put_file(struct file *file) {}
int bpf_path_d_path(const struct path *path, char *buf, u64 buf__sz) { return 0; }
unsigned bpf_cpumask_first(const struct cpumask *cpumask) { return 0; }
struct bpf_cpumask *bpf_cpumask_create(void) { return 0; }
void bpf_cpumask_release(struct bpf_cpumask *cpumask) {}
int bpf_copy_from_user_str(void *dst, unsigned dst__sz, const void *src__ign, u64 flags)
{ return 0; }
struct xdp_md { unsigned data, data_end; };
int bpf_xdp_pull_data(struct xdp_md *x, unsigned len) { return 0; }
int bpf_xdp_metadata_rx_hash(const void *ctx, unsigned *hash) { return 0; }
void __bpf_trap(void) {}
void bpf_unlisted(void) {}
long bpf_stream_vprintk(int stream_id, const char *fmt__str, const void *args, unsigned len__sz)
{ return 0; }
struct bpf_prog_aux { int n; };
long bpf_stream_vprintk_impl(int stream_id, const char *fmt__str, const void *args,
			     unsigned len__sz, struct bpf_prog_aux *aux) { return 0; }
