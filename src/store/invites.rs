//! Invitations: who may sign up where not everybody may.

use redb::ReadableTableMetadata as _;

use super::codec::{InviteRow, hash32};
use super::queue::Hints;
use super::tables::Rows;
use super::vault::InviteCode;
use super::{Store, StoreError};
use crate::domain::{Invalid, InviteId, Role, Timestamp, UserId};

/// An invitation, without the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteInfo {
    /// Which; not secret.
    pub id: InviteId,
    /// What the invited will be.
    pub role: Role,
    /// Who invited; `None` = at the console.
    pub created_by: Option<UserId>,
    /// When.
    pub created_at: Timestamp,
    /// Until when.
    pub expires_at: Timestamp,
}

/// Open invitations: a household, not a mailing.
pub const MAX_INVITES: u64 = 200;
/// An invitation lasts a week.
pub const INVITE_S: i64 = 7 * 24 * 3600;
/// The invitation of this code, if it would let somebody in now.
pub(super) fn live_invite(invites: &impl Rows, hash: &[u8; 32]) -> Result<Option<InviteRow>, StoreError> {
    let invite = invites.get(hash.as_slice())?.map(|row| InviteRow::decode(row.value())).transpose()?;
    Ok(invite.filter(|i| i.expires_at > Timestamp::now()))
}

fn invite_info(row: &InviteRow) -> InviteInfo {
    let InviteRow { id, role, created_by, created_at, expires_at } = row.clone();
    InviteInfo { id, role, created_by, created_at, expires_at }
}

impl Store {
    /// Stores an invitation that lets one person in as `role`.
    pub fn create_invite(
        &self,
        code: &InviteCode,
        role: Role,
        created_by: Option<UserId>,
    ) -> Result<InviteInfo, StoreError> {
        let now = Timestamp::now();
        let row = InviteRow {
            id: InviteId::new(),
            role,
            created_by,
            created_at: now,
            expires_at: now.plus_seconds(INVITE_S),
        };
        let (hash, info) = (code.hash(), invite_info(&row));
        self.write(Hints::default(), move |t| {
            let all = all_invites(&t.invites)?;
            for (hash, invite) in &all {
                if invite.expires_at <= now {
                    t.invites.remove(hash.as_slice())?;
                }
            }
            if t.invites.len()? >= MAX_INVITES {
                return Err(Invalid::new(
                    "invite",
                    format!("there are {MAX_INVITES} open ones; delete some first"),
                )
                .into());
            }
            t.invites.insert(hash.as_slice(), row.encode().as_slice())?;
            Ok(())
        })?;
        Ok(info)
    }
    /// Open invitations, oldest first.
    pub fn invites(&self) -> Result<Vec<InviteInfo>, StoreError> {
        let now = Timestamp::now();
        let all = self.read(|s| all_invites(&s.invites()?))?;
        let mut open: Vec<InviteInfo> =
            all.iter().map(|(_, i)| invite_info(i)).filter(|i| i.expires_at > now).collect();
        open.sort_by_key(|i| (i.created_at, i.id));
        Ok(open)
    }
    /// Whether this code would let somebody in now. [`Store::create_user`] uses it up.
    pub fn invite(&self, code: &InviteCode) -> Result<Option<InviteInfo>, StoreError> {
        let hash = code.hash();
        self.read(|s| Ok(live_invite(&s.invites()?, &hash)?.as_ref().map(invite_info)))
    }
    /// Takes an invitation back.
    pub fn delete_invite(&self, id: InviteId) -> Result<(), StoreError> {
        self.write(Hints { weight: 0, frees_room: true }, move |t| {
            let all = all_invites(&t.invites)?;
            let (hash, _) = all.iter().find(|(_, i)| i.id == id).ok_or(StoreError::NotFound)?;
            t.invites.remove(hash.as_slice())?;
            Ok(())
        })
    }
}

fn all_invites(invites: &impl Rows) -> Result<Vec<([u8; 32], InviteRow)>, StoreError> {
    let mut all = Vec::new();
    for row in invites.iter()? {
        let (key, row) = row?;
        all.push((hash32("invites", key.value())?, InviteRow::decode(row.value())?));
    }
    Ok(all)
}
