//! Published reference values: taken from whoever brings enough signatures, given to everybody.

use std::sync::Arc;

use axum::extract::State;
use starminer_receipt::{MAX_REFERENCE_FILE_BYTES, ReferenceFile, Role};

use crate::refused::Refused;
use crate::server::{Identity, Json, Params, Whole};
use crate::shared::Shared;
use crate::tasks::Command;

pub(super) async fn publish(
    State(shared): State<Arc<Shared>>,
    Identity(_): Identity,
    Whole(body): Whole<MAX_REFERENCE_FILE_BYTES>,
) -> Result<Json<ReferenceFile>, Refused> {
    let signed = shared.published.verify(ReferenceFile::parse(&body)?, shared.clock.now().wall)?;
    let (role, seen, file) = (signed.role(), signed.seen(), Arc::new(signed.file().clone()));
    shared.writer.execute(Command::Publish { role, seen, file }).await?;
    shared.published.logged(role, &shared.log).await.map(Json)
}

pub(super) async fn newest(
    State(shared): State<Arc<Shared>>,
    Identity(_): Identity,
    Params(role): Params<Role>,
) -> Result<Json<ReferenceFile>, Refused> {
    shared.published.logged(role, &shared.log).await.map(Json)
}
