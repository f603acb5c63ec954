"""What makes a package trusted: the digest that names its bytes, and the checks that it is what it says it is.

Nothing here imports or runs anything of a package.
"""

from cardcage.trust.digest import PackageDigest, PackageLimits, digest_package
from cardcage.trust.host import Host, this_host
from cardcage.trust.verify import MANIFEST_FILES, VerifiedRelease, confirm_digest, verify

__all__ = [
    "MANIFEST_FILES",
    "Host",
    "PackageDigest",
    "PackageLimits",
    "VerifiedRelease",
    "confirm_digest",
    "digest_package",
    "this_host",
    "verify",
]
